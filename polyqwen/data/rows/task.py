"""What the data path knows of a task: which columns are what, its prefix, its share of a batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from polyqwen.data.rows.parse import (
    conversation_of,
    image_of,
    is_blank,
    labels_of,
    names_of,
    negatives_of,
    number_of,
    score_of,
    text_of,
    vector_of,
)
from polyqwen.data.rows.types import Content, Example, RowError
from polyqwen.losses.negatives import NEGATIVES_FROM, NegativesFrom

T = TypeVar("T")
FIELDS = (
    "query_text",
    "query_image",
    "document_text",
    "document_image",
    "negatives",
    "score",
    "turns",
    "labels",
    "difficulty",
    "teacher_query",
    "teacher_document",
)
PICTURES = ("query_image", "document_image")  # those of the fields that hold pictures


class Task:
    """Turns records with any column names into examples.

    Args:
        fields: field → column. Fields are query_text, query_image, document_text, document_image,
            negatives (a list of texts; the column may be missing), score (a number in [0, 1]),
            turns (a list of {question, answer}; the last answer is the document, all before it the
            query), labels (a mapping of label to class, in which a missing label is a missing key,
            or the class of ``label`` itself; the document is the query), difficulty (a number,
            for ``easy_first``), teacher_query and teacher_document (lists of numbers: a teacher's
            vectors, for `RelationalKLLoss`; any length, the same in all rows).
        prefix: marks the task's inputs, such as ``<ocr>``.
        share: rows of this task relative to the others' in a mixed batch, > 0.
        batch_size: rows of this task in every batch of a process; None divides ``data.batch_size``
            by share.
        visual_tokens: largest picture, in visual tokens.
        negatives_from: what a row's document is told from: "batch", the other rows' documents (the
            column ``negatives`` is not read); "given", the row's own negatives of that column;
            "both", the other rows' documents and the given negatives of all rows.
        turn_question: name of the question inside a turn.
        turn_answer: name of the answer inside a turn.
        info: columns carried along for tables per group.
        folder: where the rows lie below ``data.root``; None: the task's own name. Tasks that read
            the labels of one folder share its rows.
        label: the label that the task learns; only rows that have it are drawn.
        classes: the label's classes, at least 2; their order is the order of the logits.
        unlabelled_only: of a task that reads labels and learns none: draw only rows without a label
            of the run's tasks, instead of all.
        easy_first: in the first pass, draw rows from easy to hard: by difficulty, or by length.

    Attributes:
        read_fields: the fields whose columns are read.
    """

    def __init__(
        self,
        fields: dict[str, str],
        *,
        prefix: str,
        share: float = 1.0,
        batch_size: int | None = None,
        visual_tokens: int = 768,
        negatives_from: NegativesFrom = "both",
        turn_question: str = "question",
        turn_answer: str = "answer",
        info: tuple[str, ...] = ("lang", "source"),
        folder: str | None = None,
        label: str | None = None,
        classes: tuple[str, ...] = (),
        unlabelled_only: bool = False,
        easy_first: bool = False,
    ) -> None:
        unknown = sorted(set(fields) - set(FIELDS))
        if unknown:
            raise ValueError(
                f"task fields {unknown} are unknown; the fields are {', '.join(FIELDS)}"
            )
        if not share > 0:
            raise ValueError(f"a task's share must be positive, got {share}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"a task's batch_size must be at least 1, got {batch_size}")
        if visual_tokens < 1:
            raise ValueError(f"a task's visual_tokens must be at least 1, got {visual_tokens}")
        _check_label("labels" in fields, label, classes, unlabelled_only)
        _check_negatives(fields, negatives_from)
        self.fields = dict(fields)
        self.negatives_from = negatives_from
        unread = ("negatives",) if negatives_from == "batch" else ()
        self.read_fields = {name: fields[name] for name in fields if name not in unread}
        self.prefix = prefix
        self.share = share
        self.batch_size = batch_size
        self.visual_tokens = visual_tokens
        self.turn_names = (turn_question, turn_answer)
        self.info = tuple(info)
        self.folder, self.label, self.classes = folder, label, tuple(map(str, classes))
        self.unlabelled_only, self.easy_first = unlabelled_only, easy_first

    @property
    def scored(self) -> bool:
        """Whether the task's pairs carry a similarity score."""
        return "score" in self.fields

    @property
    def pictured(self) -> bool:
        """Whether the task's queries have a picture."""
        return "query_image" in self.fields

    @property
    def asked(self) -> bool:
        """Whether the task's queries have a text."""
        return "query_text" in self.fields or "turns" in self.fields

    def negatives_seen(self, rows: int, given: float) -> float:
        """Negatives of a row in a batch, where no two contents are equal; 0 for texts with labels.

        Args:
            rows: of the task in the micro-batch, of all ranks together, >= 1.
            given: mean number of given negatives of a row, >= 0.
        """
        if "labels" in self.fields:
            return 0.0
        in_batch = rows - 1
        return {"batch": in_batch, "given": given, "both": in_batch + rows * given}[
            self.negatives_from
        ]

    def example(self, record: Mapping[str, Any], where: str) -> Example:
        """One record as an example.

        Raises:
            RowError: naming the row and the column for a missing column, an empty side, a value of
                another type or a score outside [0, 1].
        """
        columns = {field: self._column(record, field, where) for field in self.read_fields}
        if "turns" in columns:
            column = self.fields["turns"]
            texts = conversation_of(columns["turns"], self.turn_names, column, where)
            columns["query_text"], columns["document_text"] = texts
        query = self._content(columns, "query", where)
        difficulty = columns.get("difficulty")
        return Example(
            query=query,
            positive=query if "labels" in columns else self._content(columns, "document", where),
            negatives=tuple(map(Content, self._read(negatives_of, columns, "negatives", where))),
            score=self._read(score_of, columns, "score", where) if self.scored else None,
            labels=labels_of(
                columns.get("labels"), self.fields.get("labels", "labels"), where, self.label
            ),
            difficulty=None
            if difficulty is None
            else self._read(number_of, columns, "difficulty", where),
            teacher_query=self._vector(columns, "teacher_query", where),
            teacher_document=self._vector(columns, "teacher_document", where),
            info={
                name: text_of(record[name], name, where)
                for name in self.info
                if record.get(name) is not None
            },
        )

    def _column(self, record: Mapping[str, Any], field: str, where: str) -> Any:
        name = self.fields[field]
        if name not in record:
            if field in ("negatives", "labels"):
                return None
            what = f"no column {name!r} for {field}; the row has {names_of(record)}"
            raise RowError(where, "missing column", what, name)
        return record[name]

    def _read(
        self, read: Callable[[Any, str, str], T], columns: Mapping[str, Any], field: str, where: str
    ) -> T:
        return read(columns.get(field), self.fields.get(field, field), where)

    def _vector(
        self, columns: Mapping[str, Any], field: str, where: str
    ) -> tuple[float, ...] | None:
        return self._read(vector_of, columns, field, where) if field in self.fields else None

    def _content(self, columns: Mapping[str, Any], side: str, where: str) -> Content:
        content = Content(
            self._read(text_of, columns, f"{side}_text", where),
            self._read(image_of, columns, f"{side}_image", where),
        )
        if is_blank(content.text) and not content.image:
            column = self.fields.get(f"{side}_text") or self.fields.get("turns")
            raise RowError(where, "empty", f"the {side} is empty", column)
        return content


def _check_negatives(fields: Mapping[str, str], negatives_from: str) -> None:
    """Raises ValueError for negatives that the task's rows cannot have."""
    if negatives_from not in NEGATIVES_FROM:
        raise ValueError(
            f"a task's negatives_from must be one of {', '.join(NEGATIVES_FROM)}, got "
            f"{negatives_from!r}"
        )
    if negatives_from != "both" and "labels" in fields:
        raise ValueError(
            f"a task with labels has no documents, and negatives_from={negatives_from} says "
            "nothing of it; leave it out"
        )
    if negatives_from == "given" and "negatives" not in fields:
        raise ValueError(
            "negatives_from=given reads the field negatives; add fields: {negatives: COLUMN}, or "
            "choose batch"
        )


def _check_label(reads: bool, label: str | None, classes: Sequence[str], unlabelled: bool) -> None:
    """Raises ValueError for a task whose label, classes and columns do not fit together."""
    if (label is not None or unlabelled) and not reads:
        raise ValueError(
            "a task with a label, or with unlabelled_only, needs the field labels; "
            "add fields: {labels: COLUMN}"
        )
    if label is not None and unlabelled:
        raise ValueError(f"a task cannot learn {label!r} from unlabelled_only rows; drop one")
    if label is None and classes:
        raise ValueError(f"a task has classes {list(classes)} and no label; name it with label")
    if label is not None and (len(classes) < 2 or len(set(classes)) < len(classes)):
        raise ValueError(
            f"a task's classes must be at least 2 different names, got {list(classes)} for the "
            f"label {label!r}"
        )
