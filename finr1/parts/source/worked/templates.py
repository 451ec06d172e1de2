"""All templates of source `worked` by name; see `template.Template`."""

from __future__ import annotations

from collections.abc import Mapping

from finr1.parts.source.worked import decide, interest, market, money, statement
from finr1.parts.source.worked.template import Template

TEMPLATES: Mapping[str, Template] = {
    template.name: template for module in (statement, interest, market, money, decide) for template in module.TEMPLATES
}
