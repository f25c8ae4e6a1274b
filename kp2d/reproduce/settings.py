"""Owns what is evaluated: a notebook's parameters and its profile become methods, sizes and rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from kp2d import checks, config
from kp2d.methods import extractors


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is evaluated and how.

    Attributes:
        methods: As for `extractors.from_name`.
        protocol: The rules; its size is that of the pictures.
        methods_at: All sizes (height, width) px, and what is evaluated at each.
    """

    methods: tuple[str, ...]
    protocol: config.Protocol
    methods_at: Mapping[tuple[int, int], tuple[str, ...]]

    @property
    def probabilistic(self) -> bool:
        """Tells whether any method's scores are probabilities, so that a score threshold does something."""
        return any(extractors.from_name(name).probabilistic for name in self.methods)

    def at_top_k(self, top_k: int = 0) -> config.Protocol:
        """Returns the rules with one k; 0 takes 300, or the largest that is evaluated.

        Raises:
            InputError: If it is none of those evaluated.
        """
        known = self.protocol.top_k
        chosen = top_k or (300 if 300 in known else known[-1])
        checks.one_of("k that is evaluated", str(chosen), [str(k) for k in known])
        return dataclasses.replace(self.protocol, top_k=(chosen,))


def evaluation_settings(
    profile: str,
    *,
    protocol: str = "kp2d",
    methods: Sequence[str] = (),
    image_size: Sequence[int] = (),
    image_sizes: Sequence[Sequence[int]] = (),
    top_k: Sequence[int] = (),
    seed: int = 0,
) -> EvaluationSettings:
    """Turns a notebook's parameters into settings; whatever is empty comes from the profile.

    An `image_size` without `image_sizes` is the only size.

    Raises:
        InputError: If the profile, the protocol or a method is unknown, or a value is out of range.
    """
    defaults = config.profile(profile)
    chosen = tuple(methods) or defaults.methods
    for name in chosen:
        extractors.from_name(name)
    rules = config.protocol(
        protocol,
        image_size=tuple(image_size) or defaults.image_size,
        top_k=tuple(top_k) or defaults.top_k,
        seed=seed,
    )
    sizes = [checks.is_image_size(size) for size in image_sizes]
    if not sizes and not image_size:
        sizes = list(defaults.image_sizes)
    further = {} if methods else defaults.size_methods
    methods_at = {size: (*chosen, *further.get(size, ())) for size in sorted({rules.image_size, *sizes})}
    return EvaluationSettings(methods=chosen, protocol=rules, methods_at=methods_at)
