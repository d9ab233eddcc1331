"""``python -m sleep_lightning`` whose ranks wait for each other as many seconds as the first argument says."""

import sys
from datetime import timedelta

from sleep_lightning.__main__ import main
from sleep_lightning.training.distributed import strategy

if __name__ == "__main__":
    strategy.TIMEOUT = timedelta(seconds=int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
