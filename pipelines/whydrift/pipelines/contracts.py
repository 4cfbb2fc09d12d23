"""What the owner expects of the model's reasons: the section of the configuration, and what the monitors make of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from whydrift.monitors.binning import FeatureBins
from whydrift.monitors.expectations import Direction, Expectation, Largest, Monotone, Share
from whydrift.monitors.outcome_streams import all_slices
from whydrift.monitors.summary import Layout
from whydrift.pipelines.errors import ConfigError
from whydrift.pipelines.sections import Section

Where = tuple[str | int, ...]


class ShareBounds(Section):
    """Bounds on the share of all absolute attribution: of a feature, or of a group as one summed attribution."""

    feature: str | None = None
    group: str | None = Field(None, description="One of the configured groups.")
    min: float | None = Field(None, ge=0, le=1)
    max: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (self.feature is None) == (self.group is None):
            raise ValueError("name a feature or a group, one of them")
        if self.min is None and self.max is None:
            raise ValueError("bounds nothing: set min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min: {self.min} is above max: {self.max}")
        return self


class Forbidden(Section):
    """Features that the model must not rely on, or that stand in for such features."""

    features: tuple[str, ...] = Field(min_length=1)
    max: float = Field(0.01, ge=0, le=1, description="The share of all absolute attribution that each may have.")


class Effect(Section):
    """Which way a numeric feature pushes."""

    feature: str
    effect: Literal["positive", "negative"] = Field(description="positive: higher values, higher outputs.")


class Response(Section):
    """The shape of the mean attribution over a numeric feature's cells."""

    feature: str
    response: Literal["increasing", "decreasing"]
    slack: float = Field(0.05, ge=0, lt=1, description="Root mean square distance that is allowed, of the range.")


class Expected(Section):
    """One thing that is expected of every window: exactly one of share to monotone."""

    name: str | None = Field(None, min_length=1, description="What findings call it; default: what it says.")
    share: ShareBounds | None = None
    no_single_feature_above: float | None = Field(None, gt=0, le=1, description="Of all absolute attribution.")
    forbidden: Forbidden | None = None
    direction: Effect | None = None
    monotone: Response | None = None
    slice: str | None = Field(None, description="Only its rows, e.g. carrier=AA: a value of a configured slice.")
    tier: Literal["page", "ticket"] = "page"

    @model_validator(mode="after")
    def _expects_one_thing(self) -> Self:
        kinds = ("share", "no_single_feature_above", "forbidden", "direction", "monotone")
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError(f"set exactly one of {', '.join(kinds)}")
        return self

    def features(self) -> Iterator[tuple[Where, str]]:
        """The features that it names, and where."""
        for kind in ("share", "direction", "monotone"):
            name = getattr(getattr(self, kind), "feature", None)
            if name is not None:
                yield (kind, "feature"), name
        for i, name in enumerate(self.forbidden.features if self.forbidden is not None else ()):
            yield ("forbidden", "features", i), name

    def assertions(self) -> Iterator[tuple[str, Share | Largest | Direction | Monotone]]:
        """What it comes to, each under a name."""
        if self.share is not None:
            subject, of = f"share of {self.share.feature or self.share.group}", self.share
            if of.min is not None:
                yield f"{self.name or subject} at least {of.min:.4g}", Share(of.min, "at least", of.feature, of.group)
            if of.max is not None:
                yield f"{self.name or subject} at most {of.max:.4g}", Share(of.max, "at most", of.feature, of.group)
        if self.no_single_feature_above is not None:
            limit = self.no_single_feature_above
            yield self.name or f"no single feature above {limit:.4g}", Largest(limit)
        if self.forbidden is not None:
            for feature in self.forbidden.features:
                yield f"{self.name or 'forbidden'}: {feature}", Share(self.forbidden.max, "at most", feature)
        if self.direction is not None:
            positive = self.direction.effect == "positive"
            name = self.name or f"{self.direction.effect} effect of {self.direction.feature}"
            yield name, Direction(self.direction.feature, positive=positive)
        if self.monotone is not None:
            response = self.monotone
            rising = response.response == "increasing"
            yield (
                self.name or f"{response.response} response to {response.feature}",
                Monotone(response.feature, rising=rising, slack=response.slack),
            )

    def expectations(self) -> Iterator[Expectation]:
        """As the monitors take it."""
        place = f" where {self.slice}" if self.slice is not None and self.name is None else ""
        for name, asserts in self.assertions():
            yield Expectation(name + place, asserts, self.slice, self.tier)


def mistakes(
    items: Sequence[Expected], groups: Collection[str], slices: Collection[str]
) -> Iterator[tuple[Where, str]]:
    """What can be seen without the model to be wrong: where in the configuration, and why."""
    named: set[str] = set()
    for i, item in enumerate(items):
        if item.share is not None and item.share.group is not None and item.share.group not in groups:
            known = ", ".join(sorted(groups)) or "none"
            yield ("expectations", i, "share", "group"), f"{item.share.group!r} is no configured group: {known}"
        if item.slice is not None and item.slice.partition("=")[0] not in slices:
            known = ", ".join(slices) or "none"
            yield ("expectations", i, "slice"), f"{item.slice!r} is not column=value of a configured slice: {known}"
        for expectation in item.expectations():
            if expectation.name in named:
                yield ("expectations", i), f"a second one is named {expectation.name!r}; give it a name of its own"
            named.add(expectation.name)


def expectations(items: Sequence[Expected], layout: Layout) -> tuple[Expectation, ...]:
    """As the monitors take them.

    Raises:
        ConfigError: one names a feature or slice that the baseline does not know, or the direction of a category.
    """
    bins = {b.name: b for b in layout.features}
    slices = all_slices(layout)
    for i, item in enumerate(items):
        for where, feature in item.features():
            if text := _unfit(bins, feature, numeric=where[0] in {"direction", "monotone"}):
                raise ConfigError(f"expectations.{i}.{'.'.join(map(str, where))}: {text}")
        if item.slice is not None and item.slice not in slices:
            raise ConfigError(f"expectations.{i}.slice: the baseline has no {item.slice!r}; it has {', '.join(slices)}")
    return tuple(expectation for item in items for expectation in item.expectations())


def _unfit(bins: dict[str, FeatureBins], feature: str, *, numeric: bool) -> str | None:
    if feature not in bins:
        return f"{feature!r} is no feature of the model; it has {', '.join(bins)}"
    return f"{feature!r} has categories, which have no order" if numeric and not bins[feature].numeric else None
