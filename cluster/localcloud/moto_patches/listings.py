"""EC2's long listings in pages, as EC2 answers: moto answers them whole.

The listing of all instance types is 1,000 descriptions: whole, it takes seconds and tens of MiB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.spot_instances import SpotInstances

from mesaform.localcloud.moto_patches.moto_types import Ec2Response, MotoObject

SMALLEST_PAGE = 5
"""The smallest `MaxResults` that EC2 accepts."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing of EC2's.

    Attributes:
        items: the name of its list in the answer.
        page_size: the largest `MaxResults`, and the one of a call that names none.

    """

    items: str
    page_size: int

    def page(self, request: Ec2Response, items: list[MotoObject]) -> MotoObject:
        """The page that the request asks for, with the token of the next one if there is one.

        Raises:
            EC2ClientError: the request's size or token is not valid.

        """
        start = _start(request._get_param("NextToken"), len(items))  # noqa: SLF001 - moto's own
        end = start + self._size(request._get_param("MaxResults"))  # noqa: SLF001
        answer: dict[str, MotoObject] = {self.items: items[start:end]}
        if end < len(items):
            answer["NextToken"] = str(end)
        return ActionResult(answer)

    def _size(self, asked: int | None) -> int:
        if asked is None:
            return self.page_size
        if asked < SMALLEST_PAGE:
            raise _invalid_size(asked, f"greater than or equal to {SMALLEST_PAGE}")
        if asked > self.page_size:
            raise _invalid_size(asked, f"smaller than {self.page_size}")
        return asked


INSTANCE_TYPES = Listing("InstanceTypes", 100)
OFFERINGS = Listing("InstanceTypeOfferings", 1000)
SPOT_PRICES = Listing("SpotPriceHistory", 1000)
"""Sizes: EC2 API reference, the operations' `MaxResults`."""


def _start(token: str | None, count: int) -> int:
    """The place of a page's first item by its token, which is that place in digits."""
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 10 and int(token) <= count):
        raise EC2ClientError("InvalidNextToken", f"The token '{token[:100]}' is invalid.")
    return int(token)


def _invalid_size(asked: int, expected: str) -> EC2ClientError:
    problem = f"Value ( {asked} ) for parameter maxResults is invalid."
    return EC2ClientError("InvalidParameterValue", f"{problem} Expecting a value {expected}.")


def in_pages(
    answer: Callable[[Ec2Response], MotoObject], listing: Listing
) -> Callable[[Ec2Response], MotoObject]:
    """A call that answers one page of what `answer` lists."""

    @wraps(answer)
    def answer_page(self: Ec2Response) -> MotoObject:
        return listing.page(self, answer(self).result[listing.items])

    return answer_page


def apply() -> None:
    """Patch moto in this process; `catalogue` must have patched the spot prices before."""
    InstanceResponse.describe_instance_types = in_pages(
        InstanceResponse.describe_instance_types, INSTANCE_TYPES
    )
    InstanceResponse.describe_instance_type_offerings = in_pages(
        InstanceResponse.describe_instance_type_offerings, OFFERINGS
    )
    SpotInstances.describe_spot_price_history = in_pages(
        SpotInstances.describe_spot_price_history, SPOT_PRICES
    )
