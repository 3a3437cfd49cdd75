"""A small MCP server with two tools, for `mcp_tools.py`."""

from mcp.server.fastmcp import FastMCP

server = FastMCP("house")


@server.tool()
def set_light(room: str, level: int) -> str:
    """Set the brightness of the lights in a room."""
    return f"The {room} lights are at {level} %."


@server.tool()
def lock_door(door: str) -> str:
    """Lock a door."""
    return f"The {door} door is locked."


if __name__ == "__main__":
    server.run()
