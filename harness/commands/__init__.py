"""The commands of the command line, over the same functions as the plugin."""
