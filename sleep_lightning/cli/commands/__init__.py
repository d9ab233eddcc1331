"""The command line: a module for each command, with its arguments and what reads them.

``add_arguments(parser)`` declares them. ``prepare(arguments)`` reads all input, raises ValueError (one sentence) for
bad input, and returns what computes: a function without arguments that returns the exit code. What a command needs is
imported in ``prepare``, so that ``--help`` is quick.
"""

COMMANDS = {
    "fit": ("fit", "train a model, record it in MLflow"),
    "validate": ("evaluate", "score a checkpoint on the validation split"),
    "test": ("evaluate", "score a checkpoint on the test split"),
    "predict": ("evaluate", "print a checkpoint's answers as JSON lines"),
    "export": ("export", "write a trained model as safetensors, with a card"),
    "chat": ("chat", "hold a trained model as a memory on a terminal"),
    "serve": ("serve", "serve sessions of a trained model over HTTP"),
    "compare": ("compare", "train several arms over seeds and print one table"),
    "sweep": ("sweep", "search for the frontier of accuracy over cost"),
    "reproduce": ("reproduce", "run the reproduction sweeps and write RESULTS.md"),
    "cost": ("cost", "print what an experiment will take: FLOPs, bytes of fast weights, inference"),
    "plan": ("plan", "say whether an experiment fits a number of GPUs"),
    "config": ("config", "print the resolved experiment as YAML"),
    "tracking": ("tracking", "send what runs could not send to MLflow"),
    "bench": ("bench", "measure speed and memory against named peers"),
    "doctor": ("doctor", "check the installation, say what to do"),
    "help": ("help", "explain a key of an experiment, or a section of them"),
    "completion": ("completion", "print what makes a shell complete commands and keys"),
}
"""Name: its module in ``cli.commands``, and what it does."""
WITH_KEYS = {"fit", "validate", "test", "predict", "chat", "serve", "compare", "cost", "plan", "config", "doctor"}
"""Commands that take keys of an experiment."""
