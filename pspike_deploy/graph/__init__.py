"""The graph: node types with their equations, semantics, files, audit, digest."""
