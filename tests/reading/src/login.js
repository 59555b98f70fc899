// Section 8 of the specification, "Login at a storefront".

import { createHmac, randomBytes } from 'node:crypto'
import { Refusal, demand, encode, equal, hkdf, sha256 } from './encodings.js'
import { decapsulate } from './xwing.js'

/** The key of a login answer. */
export const challengeKey = (ss) => hkdf(ss, null, encode('challenge-answer'), 32)

const proof = (key, { server, subject, ct, nonce, freshKey }) => createHmac('sha256', key).update(encode('challenge', server, subject, ct, nonce, freshKey)).digest()

/** answer proves that the device has the login key; it gives out the MAC and never ss. */
export const answer = (loginSeed, challenge) => {
  demand(challenge.server.length > 0, 'malformed', 'no server')
  let ss
  try {
    ss = decapsulate(loginSeed, challenge.ct)
  } catch (e) {
    if (e instanceof Refusal) throw new Refusal('malformed', e.message)
    throw e
  }
  return proof(challengeKey(ss), challenge)
}

/** verify is the storefront's part. */
export const verify = (ss, challenge, mac) => demand(equal(proof(challengeKey(ss), challenge), mac), 'open', 'login')

/**
 * signRequest gives the headers of an RFC 9421 signature with the label `sallyport`.
 * @param {{method: string, authority: string, path: string, query: string, body: Buffer}} request query with its question mark
 */
export const signRequest = (key, loginID, seconds, { method, authority, path, query, body }) => {
  const digest = `sha-256=:${sha256(body).toString('base64')}:`
  const parameters =
    `("@method" "@authority" "@path" "@query" "content-digest")` +
    `;created=${seconds};nonce="${randomBytes(16).toString('hex')}";keyid="${loginID}";alg="ed25519"`
  const base = [
    `"@method": ${method}`,
    `"@authority": ${authority}`,
    `"@path": ${path}`,
    `"@query": ${query || '?'}`,
    `"content-digest": ${digest}`,
    `"@signature-params": ${parameters}`,
  ].join('\n')
  return {
    'Content-Digest': digest,
    'Signature-Input': `sallyport=${parameters}`,
    Signature: `sallyport=:${key.sign(Buffer.from(base)).toString('base64')}:`,
  }
}
