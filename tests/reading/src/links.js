// Section 10 of the specification, "Links and codes".

import { base64, demand, hex } from './encodings.js'

const id = (v) => hex(v ?? '', 32)
const nonce = (v) => hex(v ?? '', 16)
const URL_FORM = /^https:\/\/([0-9A-Za-z._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?(\/[0-9A-Za-z._~/?&=-]*)?$/
const https = (v) => demand(!v || URL_FORM.test(v), 'malformed', 'URL')
/** The token of an invitation, unpadded base64url of 1 to 512 bytes, as bytes. */
export const tokenOf = (v) => {
  demand(/^[A-Za-z0-9_-]+$/.test(v ?? ''), 'malformed', 'token')
  const token = base64(v.replaceAll('-', '+').replaceAll('_', '/') + '='.repeat((4 - (v.length % 4)) % 4))
  demand(token.length <= 512, 'malformed', 'token')
  return token
}
const KINDS = { join: { vault: id, ceremony: id, storefront: https, owners: https }, owner: { id, nonce }, reader: { id }, invite: { reader: id, token: tokenOf } }

/** parseLink reads a sallyport: link; unknown or doubled parameters are refused, missing ones too where they are needed. */
export const parseLink = (link) => {
  const parts = /^[sS][aA][lL][lL][yY][pP][oO][rR][tT]:([a-z]+)\?([^\u0000-\u001f\u007f#;]*)$/.exec(link)
  demand(parts && Buffer.byteLength(link) <= 4096 && Object.hasOwn(KINDS, parts[1]), 'malformed', 'link')
  const shapes = KINDS[parts[1]]
  const members = {}
  for (const [name, value] of new URLSearchParams(`&${parts[2]}`)) { // the class drops a question mark at the beginning
    demand(Object.hasOwn(shapes, name) && !Object.hasOwn(members, name), 'malformed', 'parameter')
    members[name] = value
  }
  for (const [name, shape] of Object.entries(shapes)) shape(members[name])
  return { kind: parts[1], ...members }
}

/** makeLink writes one. */
export const makeLink = (kind, parameters) => `sallyport:${kind}?${new URLSearchParams(parameters)}`
