"""Every loss once more, as plain loops over Python floats."""

import math

from torch import Tensor

from polyqwen.losses.types import Pairs


def dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def candidates(p: Pairs) -> list[tuple[int, Tensor, int]]:
    """(key, embedding, row it was given for or -1) of all documents, then all hard negatives."""
    found = [(int(k), d, -1) for k, d in zip(p.document_key, p.document, strict=True)]
    if p.negative is not None:
        rows = zip(p.negative_key, p.negative, p.negative_row, strict=True)
        found += [(int(k), d, int(r)) for k, d, r in rows]
    return found


def negatives(p: Pairs, i: int) -> list[int]:
    query = int(p.query_key[i])
    positives = {int(d) for q, d in zip(p.query_key, p.document_key, strict=True) if q == query}
    wanted = {"both": lambda r: True, "batch": lambda r: r == -1, "given": lambda r: r == i}
    return [
        c
        for c, (k, _, given_for) in enumerate(candidates(p))
        if k not in positives and k != query and wanted[p.negatives_from](given_for)
    ]


def counts(p: Pairs, i: int) -> bool:
    """Whether a row without negatives is one of those that the mean is over."""
    return p.negatives_from != "given" or bool(negatives(p, i))


def both_ways(p: Pairs, forward: float, backward: float) -> float:
    """Given negatives are documents: a document has none to be told from."""
    return forward if p.negatives_from == "given" else (forward + backward) / 2


def mean(values: list[float], weight: list[float] | None = None) -> float:
    weight = weight or [1.0] * len(values)
    total = sum(w * v for w, v in zip(weight, values, strict=True))
    return total / sum(weight) if sum(weight) else 0.0


def info_nce(p: Pairs, tau: float, weight: list[float] | None = None) -> float:
    found, values = candidates(p), []
    for i, query in enumerate(p.query):
        logits = [dot(query, found[c][1]) / tau for c in [i, *negatives(p, i)]]
        values.append(math.log(sum(map(math.exp, logits))) - logits[0])
    weight = weight or [1.0] * len(values)
    return mean(values, [w * counts(p, i) for i, w in enumerate(weight)])


def backward_info_nce(p: Pairs, tau: float) -> float:
    """Document → query: query j competes for document i where that is a negative of row j."""
    values = []
    for i, document in enumerate(p.document):
        rivals = [j for j in range(len(p.query)) if i in negatives(p, j)]
        logits = [dot(p.query[j], document) / tau for j in [i, *rivals]]
        values.append(math.log(sum(map(math.exp, logits))) - logits[0])
    return mean(values)


def similarity(p: Pairs) -> list[float]:
    return [(dot(q, d) + 1) / 2 for q, d in zip(p.query, p.document, strict=True)]


def score_mse(p: Pairs) -> float:
    return mean([(float(s) - x) ** 2 for s, x in zip(p.score, similarity(p), strict=True)])


def cosine(p: Pairs) -> float:
    return mean([2 - 2 * x for x in similarity(p)])


def ordered(p: Pairs) -> list[tuple[int, int]]:
    rows = range(len(p.query))
    return [(i, j) for i in rows for j in rows if p.score[i] > p.score[j]]


def rank(p: Pairs, margin: float) -> float:
    s = similarity(p)
    return mean([max(0.0, margin - (s[i] - s[j])) for i, j in ordered(p)])


def cosent(p: Pairs, tau: float) -> float:
    s = similarity(p)
    return math.log(1 + sum(math.exp(2 * (s[j] - s[i]) / tau) for i, j in ordered(p)))


def triplet(p: Pairs, margin: float, given_only: bool = False) -> float:
    found, values = candidates(p), []
    for i, query in enumerate(p.query):
        near = [c for c in negatives(p, i) if found[c][2] == i or not given_only]
        if near:
            distance = min(1 - dot(query, found[c][1]) for c in near)
            values.append(max(0.0, 1 - dot(query, p.document[i]) - distance + margin))
    return mean(values)


def scored_text(p: Pairs, weight: list[float] | None = None) -> float:
    return info_nce(p, 0.1, weight) + 2 * score_mse(p) + 3 * rank(p, 0.05)


# --- contrastive ----------------------------------------------------------------------------------


def log_sum(logits: list[float]) -> float:
    return math.log(sum(map(math.exp, logits)))


def decoupled_nce(p: Pairs, tau: float) -> float:
    found, values = candidates(p), []
    for i, query in enumerate(p.query):
        if near := negatives(p, i):
            logits = [dot(query, found[c][1]) / tau for c in near]
            values.append(log_sum(logits) - dot(query, p.document[i]) / tau)
    return mean(values)


def backward_decoupled_nce(p: Pairs, tau: float) -> float:
    values = []
    for i, document in enumerate(p.document):
        if rivals := [j for j in range(len(p.query)) if i in negatives(p, j)]:
            logits = [dot(p.query[j], document) / tau for j in rivals]
            values.append(log_sum(logits) - dot(p.query[i], document) / tau)
    return mean(values)


def hard_negative_nce(p: Pairs, tau: float, beta: float) -> float:
    found, values = candidates(p), []
    for i, query in enumerate(p.query):
        own = math.exp(dot(query, p.document[i]) / tau)
        near = [math.exp(dot(query, found[c][1]) / tau) for c in negatives(p, i)]
        spread = sum(x**beta for x in near)
        rivals = sum(len(near) * x**beta / spread * x for x in near)
        if counts(p, i):
            values.append(-math.log(own / (own + rivals)))
    return mean(values)


def siglip(p: Pairs, tau: float, bias: float) -> float:
    found, values = candidates(p), []
    for i, query in enumerate(p.query):
        value = math.log(1 + math.exp(-(dot(query, p.document[i]) / tau + bias)))
        for c in negatives(p, i):
            value += math.log(1 + math.exp(dot(query, found[c][1]) / tau + bias))
        if counts(p, i):
            values.append(value)
    return mean(values)


# --- scores ---------------------------------------------------------------------------------------


def huber(p: Pairs, delta: float) -> float:
    values = []
    for s, x in zip(p.score.tolist(), similarity(p), strict=True):
        r = abs(s - x)
        values.append(r * r / 2 if r <= delta else delta * (r - delta / 2))
    return mean(values)


def pearson(p: Pairs) -> float:
    s, c = p.score.tolist(), similarity(p)
    if len(set(s)) < 2:
        return 0.0
    covariance = mean([(a - mean(s)) * (b - mean(c)) for a, b in zip(s, c, strict=True)])
    spread = [math.sqrt(mean([(a - mean(x)) ** 2 for a in x])) for x in (s, c)]
    return 1 - covariance / (spread[0] * spread[1]) if spread[1] else 1.0


def angle(p: Pairs, tau: float) -> float:
    half, near = p.query.shape[1] // 2, []
    for q, d in zip(p.query.tolist(), p.document.tolist(), strict=True):
        z = [complex(a, b) for a, b in zip(q[:half], q[half:], strict=True)]
        w = [complex(a, b) for a, b in zip(d[:half], d[half:], strict=True)]
        product = sum(a * b.conjugate() for a, b in zip(z, w, strict=True))
        near.append(abs(product.real + product.imag))
    return math.log(1 + sum(math.exp((near[j] - near[i]) / tau) for i, j in ordered(p)))


def same_list(p: Pairs, i: int, same_query: bool) -> list[int]:
    return [j for j, k in enumerate(p.query_key) if not same_query or k == p.query_key[i]]


def similarity_kl(p: Pairs, tau: float, same_query: bool = False) -> float:
    s, x, values = p.score.tolist(), similarity(p), []
    for i in range(len(s)):
        rows = same_list(p, i, same_query)
        teacher = [math.exp(s[j] / tau) / sum(math.exp(s[k] / tau) for k in rows) for j in rows]
        student = [math.exp(x[j] / tau) / sum(math.exp(x[k] / tau) for k in rows) for j in rows]
        values.append(sum(t * math.log(t / u) for t, u in zip(teacher, student, strict=True)))
    return mean(values)


def relational_kl(p: Pairs, tau: float) -> float:
    known = [
        (z, t, key)
        for side in ("query", "document")
        if getattr(p, f"teacher_{side}") is not None
        for z, t, key in zip(
            getattr(p, side),
            getattr(p, f"teacher_{side}"),
            getattr(p, f"{side}_key").tolist(),
            strict=True,
        )
    ]
    values = []
    for z, t, key in known:
        others = [(a, b) for a, b, other in known if other != key]
        rows = [
            [math.exp(dot(one, pair[i]) / tau) for pair in others] for i, one in ((1, t), (0, z))
        ]
        goal, ours = ([x / sum(row) for x in row] for row in rows)
        values.append(sum(a * math.log(a / b) for a, b in zip(goal, ours, strict=True)))
    return mean(values)


def margin_mse(p: Pairs, same_query: bool = False) -> float:
    s, x = p.score.tolist(), similarity(p)
    return mean(
        [
            ((s[i] - s[j]) - (x[i] - x[j])) ** 2
            for i in range(len(s))
            for j in same_list(p, i, same_query)
            if i != j
        ]
    )


# --- regularisers ---------------------------------------------------------------------------------


def distance(a: Tensor, b: Tensor) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def alignment(p: Pairs, alpha: float) -> float:
    return mean([distance(q, d) ** alpha for q, d in zip(p.query, p.document, strict=True)])


def sides(p: Pairs) -> list[list[Tensor]]:
    """The distinct queries and the distinct documents, where there are two at least."""
    queries = dict(zip(p.query_key.tolist(), p.query, strict=True))
    documents = dict(zip(p.document_key.tolist(), p.document, strict=True))
    return [list(side.values()) for side in (queries, documents) if len(side) > 1]


def uniformity(p: Pairs, t: float) -> float:
    values = []
    for side in sides(p):
        pairs = [(x, y) for i, x in enumerate(side) for y in side[:i]]
        values.append(math.log(mean([math.exp(-t * distance(x, y) ** 2) for x, y in pairs])))
    return mean(values)


def variance(p: Pairs, gamma: float) -> float:
    values, size = [], p.query.shape[1]
    for side in sides(p):
        for column in zip(*(x.tolist() for x in side), strict=True):
            squares = [size * (x - mean(list(column))) ** 2 for x in column]
            deviation = math.sqrt(sum(squares) / (len(side) - 1) + 1e-4)
            values.append(max(0.0, gamma - deviation))
    return mean(values)


def spread_out(p: Pairs) -> float:
    found = candidates(p)
    cosines = [dot(q, found[c][1]) for i, q in enumerate(p.query) for c in negatives(p, i)]
    second = mean([x * x for x in cosines]) - 1 / p.query.shape[1]
    return mean(cosines) ** 2 + max(0.0, second)


def truncated(p: Pairs, size: int) -> Pairs:
    short = {
        field: x[:, :size] / x[:, :size].norm(dim=1, keepdim=True)
        for field in ("query", "document", "negative")
        if (x := getattr(p, field)) is not None
    }
    return p._replace(**short)


# --- controls -------------------------------------------------------------------------------------


def shuffled_nce(p: Pairs, tau: float) -> float:
    partner, weight = list(range(len(p.query))), [0.0] * len(p.query)
    for i, own in enumerate(p.document_key.tolist()):
        wrong = negatives(p._replace(negatives_from="batch"), i)
        if wrong:
            partner[i] = min(wrong, key=lambda j: (int(p.document_key[j]) - own) % 2**64)
            weight[i] = 1.0
    wrongly = p._replace(document=p.document[partner], document_key=p.document_key[partner])
    return info_nce(wrongly, tau, weight)


def style(p: Pairs, tau: float, classes: int | None) -> float:
    embedding, key = [*p.query, *p.document], [*p.query_key.tolist(), *p.document_key.tolist()]
    rows = range(len(key))
    label = [k % classes if classes else i < len(p.query) for i, k in enumerate(key)]
    values = []
    for i in rows:
        logits = {j: dot(embedding[i], embedding[j]) / tau for j in rows if key[j] != key[i]}
        alike = [x for j, x in logits.items() if label[j] == label[i]]
        if alike:
            values.append(log_sum(list(logits.values())) - mean(alike))
    return mean(values)


def collapse(p: Pairs) -> float:
    points = [*p.query, *p.document]
    return 1 - mean([dot(x, y) for x in points for y in points])
