"""Features for the tools that people have: files of a folder, and objects with their interfaces."""
