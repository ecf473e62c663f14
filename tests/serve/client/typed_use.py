"""How a type checker sees the client: `make types` looks at it, and an error that it does not find fails that too."""

from __future__ import annotations

from serve.client import AsyncClient, Client, Scores


def one(client: Client) -> Scores:
    """Take the methods that ask and wait."""
    client.set_alias("m", "production", version=client.upload("m", "bundle", tags=["new"]))
    client.predict("m")  # type: ignore[call-arg]
    client.card(3)  # type: ignore[arg-type]
    client.upload("m", "bundle", tag=["a"])  # type: ignore[call-arg]
    return client.predict("m", {}, version=3, explain=True)


async def other(client: AsyncClient) -> Scores:
    """Take the methods that are awaited."""
    names: list[int] = await client.models()  # type: ignore[assignment]
    await client.wait_until_ready(timeout=len(names))
    return client.predict("m", {})  # type: ignore[return-value]
