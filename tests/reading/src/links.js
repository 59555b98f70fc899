// Section 10 of the specification, "Links and codes".

import { demand, hex } from './encodings.js'

const KINDS = {
  join: { vault: (v) => hex(v, 32), ceremony: (v) => hex(v, 32), storefront: null, owners: null },
  owner: { id: (v) => hex(v, 32), nonce: (v) => hex(v, 16) },
  reader: { id: (v) => hex(v, 32) },
}

/** parseLink reads a sallyport: link; unknown or doubled parameters are refused. */
export const parseLink = (link) => {
  const parts = /^sallyport:([a-z]+)\?(.*)$/.exec(link)
  demand(parts && Object.hasOwn(KINDS, parts[1]), 'malformed', 'link')
  const members = KINDS[parts[1]]
  const out = { kind: parts[1] }
  for (const [name, value] of new URLSearchParams(parts[2])) {
    demand(Object.hasOwn(members, name) && !Object.hasOwn(out, name), 'malformed', 'parameter')
    members[name]?.(value)
    out[name] = value
  }
  for (const name of Object.keys(members)) demand(Object.hasOwn(out, name) || members[name] === null, 'malformed', 'parameter')
  return out
}

/** makeLink writes one. */
export const makeLink = (kind, parameters) => `sallyport:${kind}?${new URLSearchParams(parameters)}`
