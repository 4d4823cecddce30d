"""Parts of launch.soak: what is run, how it is killed, how folders are compared."""
