"""What runs in the sandbox: the client of the broker for programs, for people and models, and for MCP."""
