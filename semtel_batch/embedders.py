"""A plan with whoever embeds its conversations among its endpoints, whether or not it was planned so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import count

from semtel_batch.network_plan import Embedder
from semtel_batch.plans import Plan


def with_embedders(plan: Plan, embedders: Iterable[Embedder]) -> Plan:
    """A plan that knows who embeds its conversations, whether or not it was planned so; its hash stays."""
    known = {endpoint.name for endpoint in plan.endpoints}
    new = [one for one in embedders if one.endpoint.name not in known]
    if not new:
        return plan
    prices = tuple((one.endpoint.name, price) for one in new for price in one.prices)
    endpoints = (*plan.endpoints, *(one.endpoint for one in new))
    return replace(plan, endpoints=endpoints, prices=plan.prices + prices)


def known_embedder(plan: Plan, embedder: Embedder) -> Embedder:
    """An embedder by the name under which a plan knows it, or may come to know it: another price is another one."""
    for n in count(1):
        name = embedder.endpoint.name if n == 1 else f"{embedder.endpoint.name} {n}"
        named = replace(embedder, endpoint=replace(embedder.endpoint, name=name))
        there = next((one for one in plan.endpoints if one.name == name), None)
        told = {replace(price, source="") for who, price in plan.prices if who == name}
        if there is None or (there == named.endpoint and told == {replace(p, source="") for p in named.prices}):
            return named
    raise AssertionError("count() does not end")
