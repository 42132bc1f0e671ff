"""Signatures that are read from source text: what ``**kwargs`` hand on."""

from polyqwen.config.signatures import class_constant, signature_of


def test_arguments_of_a_typed_dict_are_those_of_the_base_that_takes_them() -> None:
    signature = signature_of("polyqwen.weighting.by_gradient.pcgrad.PCGrad")
    required = {name: p.required for name, p in signature.parameters.items()}
    shared = {"static": True, "gram": True, "normalize": False, "eval_steps": False}
    assert required == {"orders": False, "seed": False} | shared and not signature.open


def test_an_argument_given_by_position_is_not_handed_on_and_its_neighbours_are() -> None:
    base = signature_of("polyqwen.metrics.classification.SpaceMetrics").parameters
    label = signature_of("polyqwen.metrics.classification.ClassificationMetrics").parameters
    assert "compute_on_cpu" in base
    assert set(label) == {"classes", *base}


def test_a_class_method_hands_on_what_its_class_takes() -> None:
    signature = signature_of("polyqwen.models.qwen2_vl.Qwen2VLEncoder.from_config")
    assert {"vocabulary", "compile", "vision_cache", "residual_init"} <= set(signature.parameters)
    assert signature.parameters["vocabulary"].required and "model" not in signature.parameters


def test_a_constant_of_a_class_is_its_own_or_that_of_its_first_base() -> None:
    of = "polyqwen.weighting.{}".format
    assert class_constant(of("by_gradient.pcgrad.PCGrad"), "uses_static") is False
    assert class_constant(of("lossrag.strategy.LossRAG"), "uses_static") is True
    assert class_constant(of("by_loss.static.StaticWeighting"), "uses_static") is True
    assert class_constant(of("by_loss.static.StaticWeighting"), "no_such_name") is None
