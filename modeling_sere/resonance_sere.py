"""The Instantaneous Resonance Field (IRF) and the Triple-Resonance Interaction Chain (TRIC) loss.

The paper (arXiv:2604.07417) names both; its formulae are not public. The equations here are this project's own reading
and are derived, under the same names, in docs/method.md.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

UNLABELLED = -100
LARGEST_BIAS = 300.0  # of an emotion in the balance: keeps its exponential within double precision
CHUNK = 4096  # clips per block of a sum over clips: bounds the working memory, changes no result


def center_rows(scores: torch.Tensor) -> torch.Tensor:
    """Subtract each clip's mean over the classes. scores (n, C)."""
    return scores - scores.mean(1, keepdim=True)


def spread(scores: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of all entries; 1 where there is none, so that dividing by it is always defined."""
    value = (scores - scores.mean()).square().mean().sqrt()
    return torch.where(value > 1e-8, value, torch.ones_like(value))


def balanced_softmax(
    scores: torch.Tensor,
    class_prior: torch.Tensor,
    strength: float = 1.0,
    iterations: int = 200,
    bias: torch.Tensor | None = None,
):
    """Compute the row softmax whose column means follow a class prior (equation "balance"; Sinkhorn and Knopp,
    1967).

    Args:
        scores: (n, C) log-domain scores.
        class_prior: (C,) >= 0, summing to 1.
        strength: 0 gives the plain softmax, 1 column means equal to `class_prior`, between them a compromise
            (the exponent of the column step, as in KL-relaxed transport).
        bias: (C,) where to start: one near the result saves iterations and changes nothing else.

    Returns:
        `(posteriors, bias)`: (n, C), rows summing to 1, and (C,): `posteriors = softmax(scores + bias)`.
    """
    if strength == 0:
        return torch.softmax(scores, 1), torch.zeros_like(class_prior)
    class_prior = class_prior.clamp_min(1e-8).double()
    log_prior = class_prior.log()
    wide = scores.double()
    kernel = (wide - wide.amax(1, keepdim=True)).clamp_min(-LARGEST_BIAS).exp()
    bias = torch.zeros_like(log_prior) if bias is None else bias.double()
    share = _share(kernel, bias)
    for _ in range(iterations):
        step = strength * (log_prior - share.clamp_min(1e-12).log() + bias) - bias
        if step.abs().max() < 1e-5:
            break
        if strength == 1:  # Sinkhorn's step always helps but may take thousands: take Newton's where it helps more
            newton = bias + _newton_step(kernel, bias, share, class_prior)
            candidate = _share(kernel, newton)
            if (candidate - class_prior).abs().sum() < 0.5 * (share - class_prior).abs().sum():
                bias, share = newton, candidate
                continue
        bias = (bias + step).clamp(-LARGEST_BIAS, LARGEST_BIAS)
        share = _share(kernel, bias)
    bias = bias.to(scores.dtype)
    return torch.softmax(scores + bias, 1), bias


def _share(kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute the column means (C,) of the row softmax of `log(kernel) + bias`, by two products with a vector."""
    gain = (bias - bias.max()).exp()
    return gain * (kernel.T @ (kernel @ gain).reciprocal()) / len(kernel)


def _newton_step(kernel, bias, share: torch.Tensor, class_prior: torch.Tensor) -> torch.Tensor:
    """Compute the step (C,) of the bias for the convex potential `mean logsumexp(scores + b) - class_prior . b`."""
    p = (kernel.log() + bias).softmax(1)
    hessian = torch.diag(share) - p.T @ p / len(p)
    hessian = hessian + 1 / len(share)  # a constant added to the bias changes nothing: take it out of the null space
    hessian.diagonal().add_(1e-10)
    return torch.linalg.solve(hessian, class_prior - share)


def precise(values: torch.Tensor) -> torch.Tensor:
    """Convert to single precision at least: double stays double."""
    return values if values.dtype == torch.double else values.float()


class ResonanceFilter:
    """H = K (K + damping I)^-1 for the resonance matrix K = E E' without ever forming K (equation "filter").

    Args:
        embeddings: (n, D), rows of unit length. The D x D or the n x n system, whichever is smaller, is factored once;
            every later use costs O(n D C).
        damping: modes of K weaker than this are damped.
    """

    def __init__(self, embeddings: torch.Tensor, damping: float):
        self.embeddings = embeddings
        self.dual = embeddings.shape[0] < embeddings.shape[1]
        if self.dual:
            gram = embeddings @ embeddings.T
        else:
            gram = sum(block.T @ block for block in embeddings.split(CHUNK))
        # of clips that are all alike rounding leaves no more than this to tell the modes apart
        least = 16 * torch.finfo(gram.dtype).eps * float(gram.diagonal().sum())
        self.damping = max(damping, least)
        gram.diagonal().add_(self.damping)
        self.factor = torch.linalg.cholesky(gram)

    def __call__(self, targets: torch.Tensor) -> torch.Tensor:
        """Filter targets (n, C): H targets, (n, C)."""
        if self.dual:
            return targets - self.damping * torch.cholesky_solve(targets, self.factor)
        return self.embeddings @ self.weights(targets)

    def weights(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the map W (D, C) with E W = H targets. targets (n, C)."""
        if self.dual:
            return self._project(torch.cholesky_solve(targets, self.factor))
        return torch.cholesky_solve(self._project(targets), self.factor)

    def _project(self, values: torch.Tensor) -> torch.Tensor:
        """Return E' values, (D, C): few columns are five times faster as rows."""
        return (values.T @ self.embeddings).T


def prior_scores(profile: dict[str, list[float]], labels: list[str], like: torch.Tensor):
    """Return the prior as a linear map of a clip's standardised cues (equation "prior").

    `J_k = -1/2 |c - p_k|^2` up to a term that is the same for every class is `c . p_k - 1/2 |p_k|^2`; both are centred
    over the emotions that the profile knows, and the others get 0: the prior is silent on them.

    Returns:
        `(weight, bias)`: (cues, C) and (C,), on `like`'s device and in its dtype.
    """
    known = [k for k, label in enumerate(labels) if label in profile]
    weight = like.new_zeros(5, len(labels))
    bias = like.new_zeros(len(labels))
    if len(known) >= 2:
        p = like.new_tensor([profile[labels[k]] for k in known])
        p = p - p.mean(0)
        half = 0.5 * p.square().sum(1)
        weight[:, known] = p.T
        bias[known] = half.mean() - half
    return weight, bias


@dataclass
class LinearMap:
    """`scores = embeddings @ weight + cues @ cue_weight + bias`: what an organised field says of any single clip."""

    weight: torch.Tensor  # (D, C)
    cue_weight: torch.Tensor  # (cues, C)
    bias: torch.Tensor  # (C,)

    @classmethod
    def of_embeddings(cls, weight: torch.Tensor, num_cues: int = 5) -> "LinearMap":
        """Return a map of the embeddings alone, (D, C)."""
        classes = weight.shape[1]
        return cls(weight, weight.new_zeros(num_cues, classes), weight.new_zeros(classes))

    def __call__(self, embeddings: torch.Tensor, cues: torch.Tensor) -> torch.Tensor:
        return embeddings @ self.weight + cues @ self.cue_weight + self.bias

    def __add__(self, other: "LinearMap") -> "LinearMap":
        return LinearMap(self.weight + other.weight, self.cue_weight + other.cue_weight, self.bias + other.bias)

    def __mul__(self, factor) -> "LinearMap":
        return LinearMap(self.weight * factor, self.cue_weight * factor, self.bias * factor)

    def centered(self) -> "LinearMap":
        """Return the same map followed by `center_rows`."""
        return LinearMap(center_rows(self.weight), center_rows(self.cue_weight), self.bias - self.bias.mean())


@dataclass
class FieldOutput:
    """Result of organising: `posteriors` (n, C); per domain the linear map whose softmax gives them."""

    posteriors: torch.Tensor
    maps: dict[int, LinearMap]


class InstantaneousResonanceField(nn.Module):
    """Self-organisation of unlabelled clips around labelled sources and the prior (docs/method.md, "Field").

    It has no parameters; its constants come from [`SereConfig`]. Everything is linear in the number of clips n: with
    D-dimensional embeddings it needs O(n (D + C) + min(n, D)^2) memory.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config

    def filter(self, embeddings: torch.Tensor) -> ResonanceFilter:
        """Return the resonance filter of these clips; reuse it when only the labels change. embeddings (n, D)."""
        return ResonanceFilter(precise(embeddings), self.config.field_damping)

    def response(self, embeddings: torch.Tensor, labels: torch.Tensor) -> LinearMap:
        """Return the ridge response to the labelled sources (equation "response").

        Args:
            embeddings: (n, D). labels: (n,), -100 = unlabelled. Without any label the response is zero.
        """
        num_labels = self.config.num_labels
        labelled = labels != UNLABELLED
        sources = precise(embeddings[labelled])
        weight = sources.new_zeros(embeddings.shape[1], num_labels)
        if len(sources):
            onehot = F.one_hot(labels[labelled], num_labels).to(sources)
            weight = ResonanceFilter(sources, self.config.ridge).weights(onehot - onehot.mean(0))
        return LinearMap.of_embeddings(weight)

    def prior(self, like: torch.Tensor) -> LinearMap:
        """Return the prior as a map of the cues alone. `like` (n, D) gives device, dtype and D."""
        weight, bias = prior_scores(self.config.prior_profile, self.config.labels, like)
        return LinearMap(like.new_zeros(like.shape[1], len(bias)), weight, bias)

    @torch.no_grad()
    def forward(
        self,
        embeddings: torch.Tensor,
        cues: torch.Tensor,
        labels: torch.Tensor,
        domains: torch.Tensor,
        class_prior: torch.Tensor | None = None,
        filter: ResonanceFilter | None = None,
        prior_weight: float | None = None,
        rounds: int | None = None,
    ) -> FieldOutput:
        """Organise all clips.

        Args:
            embeddings: (n, D), unit rows, source and target together.
            cues: (n, 5), standardised per domain.
            labels: (n,), class index or -100.
            domains: (n,), domain index (source, target, ...); balance and scale are per domain.
            class_prior: expected class shares, (C,) of all domains or (domains, C), default uniform.
            filter: from `self.filter(embeddings)` if it was made before.
            prior_weight, rounds: default: those of the configuration. No round leaves the start.
        """
        with torch.autocast(device_type=embeddings.device.type, enabled=False):
            state = _Rounds(
                self, precise(embeddings), precise(cues), labels, domains, class_prior, filter, prior_weight
            )
            responses = state.starts
            for keep in torch.linspace(1, 0, self.config.field_rounds if rounds is None else rounds).tolist():
                posteriors = state.balance(responses, self.config.field_sharpness)
                responses = state.resonate(posteriors, keep)
            return state.output(responses)

    @torch.no_grad()
    def read_out(
        self, embeddings, cues, labels, domains, posteriors, class_prior=None, filter=None
    ) -> dict[int, LinearMap]:
        """Return the last round on other embeddings of the same clips, from posteriors (n, C) that the field has
        reached.

        Clips organised with their speakers' statistics thus teach the map for clips of unknown speakers (equation
        "read-out"). Other arguments as in `forward`; returns the maps of `FieldOutput`.
        """
        with torch.autocast(device_type=embeddings.device.type, enabled=False):
            rounds = _Rounds(self, precise(embeddings), precise(cues), labels, domains, class_prior, filter)
            return rounds.output(rounds.resonate(posteriors, keep=0.0)).maps


@dataclass
class _Response:
    """Scores (n, C) on the clips of a domain. `linear` makes the map that gives them: only the last one's is needed."""

    linear: Callable[[], LinearMap]
    scores: torch.Tensor

    def __add__(self, other: "_Response") -> "_Response":
        return _Response(lambda: self.linear() + other.linear(), self.scores + other.scores)

    def __mul__(self, factor) -> "_Response":
        return _Response(lambda: self.linear() * factor, self.scores * factor)

    def normalised(self) -> "_Response":
        """Centre them over the classes, and scale them to unit spread over the clips."""
        centered = _Response(lambda: self.linear().centered(), center_rows(self.scores))
        return centered * (1 / spread(centered.scores))


class _Rounds:
    """State of one organisation that stays over its rounds, and the two halves of a round."""

    def __init__(self, field, embeddings, cues, labels, domains, class_prior, filter, prior_weight=None):
        self.config = config = field.config
        self.filter = field.filter(embeddings) if filter is None else filter
        self.members = {int(d): (domains == d).nonzero().squeeze(1) for d in domains.unique()}
        if class_prior is None:
            class_prior = embeddings.new_full((config.num_labels,), 1 / config.num_labels)
        self.class_priors = {d: class_prior if class_prior.dim() == 1 else class_prior[d] for d in self.members}
        self.biases = dict.fromkeys(self.members)  # of the last balance
        self.labelled = (labels != UNLABELLED).nonzero().squeeze(1)
        self.onehot = F.one_hot(labels[self.labelled], config.num_labels).to(embeddings)
        weight = config.prior_weight if prior_weight is None else prior_weight
        weight = weight if len(config.prior_profile) else 0.0
        self.gain = (1 + weight) ** 0.5
        of_labels, of_cues = field.response(embeddings, labels), field.prior(embeddings)
        # the one looks at embeddings alone, the other at cues
        response = self._by_domain(lambda: of_labels, embeddings @ of_labels.weight)
        prior = self._by_domain(lambda: of_cues, cues @ of_cues.cue_weight + of_cues.bias)
        self.starts = {
            d: (response[d].normalised() + prior[d].normalised() * weight).normalised() * self.gain
            for d in self.members
        }

    def _by_domain(self, linear: Callable[[], LinearMap], scores: torch.Tensor) -> dict[int, _Response]:
        """Return a map and its scores on the clips of every domain."""
        return {d: _Response(linear, scores[index]) for d, index in self.members.items()}

    def balance(self, responses: dict[int, _Response], sharpness: float) -> torch.Tensor:
        """Return posteriors (n, C) of the sharpened scores, balanced per domain; `biases` are left for `output`."""
        posteriors = self.onehot.new_empty(sum(map(len, self.members.values())), self.config.num_labels)
        for d, index in self.members.items():
            posteriors[index], self.biases[d] = balanced_softmax(
                responses[d].scores * sharpness, self.class_priors[d], self.config.field_balance, bias=self.biases[d]
            )
        return posteriors

    def resonate(self, posteriors: torch.Tensor, keep: float) -> dict[int, _Response]:
        """Send posteriors through the resonance filter, labelled clips clamped, joined by `keep` times the start."""
        clamped = posteriors.clone()
        clamped[self.labelled] = self.onehot
        clamped -= clamped.mean(0)
        filtered = self._by_domain(lambda: LinearMap.of_embeddings(self.filter.weights(clamped)), self.filter(clamped))
        joined = {d: filtered[d].normalised() + self.starts[d] * keep for d in self.members}
        scale = self.gain / spread(torch.cat([response.scores for response in joined.values()]))
        return {d: response * scale for d, response in joined.items()}

    def output(self, responses: dict[int, _Response]) -> FieldOutput:
        """Return posteriors of these responses, and the maps whose softmax they are."""
        posteriors = self.balance(responses, 1.0)
        maps = {}
        for d, response in responses.items():
            linear = response.linear()
            maps[d] = LinearMap(linear.weight, linear.cue_weight, linear.bias + self.biases[d])
        return FieldOutput(posteriors, maps)


class TripleResonanceInteractionChain(nn.Module):
    """TRIC loss over one batch of embeddings (docs/method.md, "TRIC").

    With row-stochastic resonances `P^{LU}`, `P^{UU}`, `P^{UL}` = softmax(cosine / temperature), the chain
    `C = P^{LU} P^{UU} P^{UL}` walks labelled -> unlabelled -> unlabelled -> labelled. It should come home to its own
    emotion, `-mean_i log sum_{j: y_j = y_i} C_ij`, and visit every unlabelled clip alike (KL of the uniform
    distribution from the mean of `P^{LU}`).
    """

    def __init__(self, config):
        super().__init__()
        self.temperature = config.tric_temperature
        self.visit_weight = config.visit_weight

    def hops(self, labelled: torch.Tensor, unlabelled: torch.Tensor):
        """Compute from unit rows (l, D), (u, D) `P^{LU}` (l, u), `P^{UU}` (u, u), `P^{UL}` (u, l), rows of sum 1."""
        labelled, unlabelled = labelled.float(), unlabelled.float()
        to_unlabelled = torch.softmax(labelled @ unlabelled.T / self.temperature, 1)
        within = unlabelled @ unlabelled.T / self.temperature
        if len(unlabelled) > 1:  # a clip must not answer itself
            within = within.masked_fill(torch.eye(len(unlabelled), dtype=torch.bool, device=within.device), -torch.inf)
        back = torch.softmax(unlabelled @ labelled.T / self.temperature, 1)
        return to_unlabelled, torch.softmax(within, 1), back

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the scalars `tric` and `visit` of embeddings (B, D), unit rows, and labels (B,), -100 if unlabelled.

        Both are 0 (with a gradient of 0) in a batch that lacks labelled or unlabelled clips.
        """
        with torch.autocast(device_type=embeddings.device.type, enabled=False):
            labelled = labels != UNLABELLED
            if not labelled.any() or labelled.all():
                zero = embeddings.float().sum() * 0
                return {"tric": zero, "visit": zero}
            first, second, third = self.hops(embeddings[labelled], embeddings[~labelled])
            chain = first @ second @ third
            same = labels[labelled][:, None] == labels[labelled][None, :]
            home = (chain * same).sum(1).clamp_min(1e-12)
            visits = first.mean(0).clamp_min(1e-12)
            return {
                "tric": -home.log().mean(),
                "visit": -(visits.log() + torch.log(visits.new_tensor(float(len(visits))))).mean(),
            }

    def combine(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss itself: `tric + visit_weight * visit`."""
        return terms["tric"] + self.visit_weight * terms["visit"]
