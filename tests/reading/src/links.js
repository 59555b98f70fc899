// Section 10 of the specification, "Links and codes".

import { demand, hex } from './encodings.js'

const id = (v) => hex(v ?? '', 32)
const nonce = (v) => hex(v ?? '', 16)
const https = (v) => {
  if (!v) return
  let url
  try {
    url = new URL(v)
  } catch {
    demand(false, 'malformed', 'URL')
  }
  demand(url.protocol === 'https:' && url.host !== '' && !url.username && !url.password, 'malformed', 'URL')
}
const KINDS = { join: { vault: id, ceremony: id, storefront: https, owners: https }, owner: { id, nonce }, reader: { id } }

/** parseLink reads a sallyport: link; unknown or doubled parameters are refused, missing ones too where they are needed. */
export const parseLink = (link) => {
  const parts = /^sallyport:([a-z]+)\?([^#;]*)$/.exec(link)
  demand(parts && link.length <= 4096 && Object.hasOwn(KINDS, parts[1]), 'malformed', 'link')
  const shapes = KINDS[parts[1]]
  const members = {}
  for (const [name, value] of new URLSearchParams(parts[2])) {
    demand(Object.hasOwn(shapes, name) && !Object.hasOwn(members, name), 'malformed', 'parameter')
    members[name] = value
  }
  for (const [name, shape] of Object.entries(shapes)) shape(members[name])
  return { kind: parts[1], ...members }
}

/** makeLink writes one. */
export const makeLink = (kind, parameters) => `sallyport:${kind}?${new URLSearchParams(parameters)}`
