"""Several configurations over several seeds in one table: is it sleep that helps, or something confounded with it?"""
