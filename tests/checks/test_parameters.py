from lightning_recipes.checks.parameters import coverage

SIZES = {"stem.weight": 10, "body.weight": 900, "head.weight": 90}


def only(findings):
    assert len(findings) == 1
    return findings[0]


def test_all_is_well():
    assert only(coverage(SIZES, SIZES)).status == "PASS"
    assert only(coverage(SIZES, SIZES, frozen={"x": 10_000}, frozen_untrained=False)).status == "PASS"
    assert only(coverage(SIZES, SIZES, frozen={"x": 10_000})).status == "PASS"


def test_missing_and_replaced_parameters():
    found = only(coverage(SIZES, ["head.weight"]))
    assert (found.status, found.causes) == ("WARN", ("optimizer-misses-parameters",))
    found = only(coverage(SIZES, ["stem.weight", "body.weight"], stale=1))
    assert (found.status, found.causes) == ("FAIL", ("head-replaced-after-optimizer",))
    assert only(coverage(SIZES, SIZES, stale=1)).status == "INFO"


def test_parameters_without_gradient():
    found = only(coverage(SIZES, SIZES, without_gradient=["stem.weight", "body.weight"]))
    assert (found.status, found.causes) == ("FAIL", ("detached-backbone",))
    assert only(coverage(SIZES, SIZES, without_gradient=["head.weight"])).status == "WARN"
    assert only(coverage(SIZES, SIZES, without_gradient=["stem.weight"])).status == "WARN"
    token = {"mask_token": 1, **SIZES}
    assert only(coverage(token, token, without_gradient=["mask_token"])).status == "INFO"


def test_a_frozen_backbone_of_random_weights():
    found = only(coverage(SIZES, SIZES, frozen={"x": 10_000}, frozen_untrained=True))
    assert (found.status, found.causes) == ("WARN", ("frozen-backbone",))
    assert only(coverage(SIZES, SIZES, frozen={"x": 10}, frozen_untrained=True)).status == "PASS"
    assert only(coverage({}, [], frozen={"x": 10})).status == "FAIL"
