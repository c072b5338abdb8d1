"""Sources of bytes: S3 buckets (s3/bucket.py) and other HTTP services (http.py).

A source is a function that opens an Upstream (body/upstream.py): status, headers, length, a `read`
that raises BrokenTransfer, and a `close` for the caller's exit stack. It raises DownloadError. To
add one, write that function, an answer like answers/remote_body.py and a route like bytes.py.
"""
