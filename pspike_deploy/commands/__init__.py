"""The commands of ``pspike``; nothing heavy is imported before a command needs it."""
