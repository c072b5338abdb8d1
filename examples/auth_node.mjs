// Node beside downspout: decides who may download what, for AUTH_URL.
//
// PORT=9000 node auth_node.mjs

import { createServer } from "node:http";

// The paths that each session (in a cookie) or bearer token may download.
const PATHS = new Map([
  ["session-of-ada", ["/tasks/1/", "/objects/videos/"]],
  ["token-of-grace", ["/tasks/", "/objects/"]],
]);

createServer(({ headers }, response) => {
  const token = /^Bearer (.*)$/i.exec(headers.authorization ?? "");
  const session = /(?:^|; )session=([^;]*)/.exec(headers.cookie ?? "");
  const paths = PATHS.get((token ?? session)?.[1]);
  if (!paths) return response.writeHead(401, { "WWW-Authenticate": 'Bearer realm="photos"' }).end();
  // Percent-encoded as the client sent it: compare it with what is allowed, not with what is not.
  const isAllowed = paths.some((path) => headers["x-original-uri"]?.startsWith(path));
  response.writeHead(isAllowed ? 204 : 403).end();
}).listen(process.env.PORT ?? 9000, "127.0.0.1");
