"""What the policy of an installation can already say about a manifest; pure.

Everything else it says about pods; the controller and the agents see those.
"""

import re
from collections.abc import Iterable, Iterator

from squall.api.policy import EVERYTHING, Extent, Policy
from squall.api.served import Cause
from squall.webhook.reach import Reach


def refusals(policy: Policy, reached: Iterable[Reach]) -> Iterator[Cause]:
    """Find what can never act here, in the words of the policy."""
    # The labels of the pods and the annotations of their namespace are not in a manifest.
    places = policy.model_copy(update={"opt_in_namespaces": False, "opt_in_labels": {}})
    for reach in reached:
        for field, namespace in reach.targets:
            if namespace and (why := places.refuses(namespace, {}, None)):
                yield Cause(field, "FieldValueInvalid", f'Invalid value: "{namespace}": {why}')
        if re.fullmatch(r"\+?[0-9]{1,3}", reach.share) and int(reach.share) <= EVERYTHING:
            part = Extent(hit=int(reach.share), of=EVERYTHING)
            if why := policy.refuses_extent(part):
                field = f"{reach.field.removesuffix('.selector')}.mode"
                yield Cause(field, "FieldValueInvalid", f"Invalid value: {why}")
