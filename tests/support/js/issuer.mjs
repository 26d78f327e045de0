// An OpenID Connect issuer (oidc-provider) with a login form, on a port of this machine.
// Job: {modules, port, clients: [{client_id, client_secret?, redirect_uris}], people: {login: {claims}}}

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const job = JSON.parse(process.argv[2]);
const require = createRequire(pathToFileURL(`${job.modules}/package.json`));
const { default: Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));

const provider = new Provider(`http://127.0.0.1:${job.port}`, {
  clients: job.clients.map((client) => ({
    grant_types: ["authorization_code"],
    response_types: ["code"],
    token_endpoint_auth_method: client.client_secret ? "client_secret_basic" : "none",
    ...client,
  })),
  claims: { openid: ["sub"], profile: ["preferred_username"], email: ["email", "email_verified"], groups: ["groups"] },
  scopes: ["openid", "profile", "email", "groups"],
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...job.people[id] }) }),
  features: { devInteractions: { enabled: true } },
  pkce: { required: () => true },
  cookies: { keys: ["test"] },
});
provider.listen(job.port, "127.0.0.1", () => console.log("ready"));
