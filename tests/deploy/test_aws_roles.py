"""`deploy/aws_roles.yaml` by Amazon's own description of resources, and by what `cluster.yaml` needs of it."""

import re

import pytest
from cfnlint.api import ManualArgs, lint

from tests.deploy.documents import ROOT, read_yaml

TEMPLATE = (ROOT / "deploy" / "aws_roles.yaml").read_text()
CLUSTER = read_yaml("cluster.yaml")


def test_amazon_accepts_it() -> None:
    assert problems(TEMPLATE) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("PolicyName", "PolicyNames", "'PolicyNames' was unexpected"),
        ("ManagedPolicyArns", "ManagedPolicies", "'ManagedPolicies' was unexpected"),
        ("!GetAtt WorkerRole.Arn", "!GetAtt Worker.Arn", "'Worker' is not one of"),
        ("sts:AssumeRole", "sts:AssumesRole", "'assumesrole' is not one of"),
        ("s3:PutObject", "s3:PutsObject", "'putsobject' is not one of"),
        ("AWS::IAM::InstanceProfile", "AWS::IAM::Profile", "'AWS::IAM::Profile' does not exist"),
    ],
)
def test_a_slip_is_noticed(right: str, wrong: str, problem: str) -> None:
    assert right in TEMPLATE
    assert problem in problems(TEMPLATE.replace(right, wrong))


def test_it_makes_the_profiles_that_the_machines_ask_for() -> None:
    asked = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in CLUSTER["available_node_types"].values()}
    assert set(re.findall(r"InstanceProfileName: (\S+)", TEMPLATE)) == asked


def test_the_head_ends_the_machines_of_this_cluster_only() -> None:
    # The tag that Ray gives its machines.
    assert f'"aws:ResourceTag/ray-cluster-name": {CLUSTER["cluster_name"]}' in TEMPLATE


def test_the_head_may_look_up_the_machines_image() -> None:
    image = CLUSTER["available_node_types"]["head"]["node_config"]["ImageId"].removeprefix("resolve:ssm:")
    allowed = re.search(r"parameter(/\S+)\*$", TEMPLATE, re.MULTILINE)
    assert allowed
    assert image.startswith(allowed[1])


def problems(template: str) -> str:
    """What cfn-lint has against a template."""
    return "; ".join(str(match) for match in lint(template, config=ManualArgs(regions=[CLUSTER["provider"]["region"]])))
