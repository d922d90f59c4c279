"""Core NIR toward other frameworks: packed noise and test vectors for any reader."""
