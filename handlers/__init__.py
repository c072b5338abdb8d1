"""downspout's ASGI application: streamed downloads from S3 and other HTTP services.

The routes are modules at the top of this package; its folders hold the code that routes share.
pyproject.toml declares which module may import which; `lint-imports` checks it. Imports inside the
package are relative, because it is installed under the name `downspout`.
"""

from .access.signed_url import sign_url
from .app import create_app, drain
from .embed import redirect_object, stream_object, stream_url
from .errors import BrokenTransfer, CannotStart
from .landing import curl_lines
from .settings import Settings, SettingsError
from .sources.s3.session import chain_problem

__all__ = [
    "BrokenTransfer",
    "CannotStart",
    "Settings",
    "SettingsError",
    "chain_problem",
    "create_app",
    "curl_lines",
    "drain",
    "redirect_object",
    "sign_url",
    "stream_object",
    "stream_url",
]
