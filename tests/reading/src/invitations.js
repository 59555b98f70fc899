// Section 12 of the specification, "Invitations": tokens that only the reader who made them reads.

import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto'
import { demand, encode, equal, hkdf, u64, visible } from './encodings.js'

const keys = (root) => ({ cipher: hkdf(root, null, encode('invitation-cipher'), 32), mac: hkdf(root, null, encode('invitation-mac'), 32) })
const nonceOf = (mac, reader, expires, reference) => createHmac('sha256', mac).update(encode('invitation', reader, expires, reference)).digest().subarray(0, 12)

/** reference is 1 to 64 bytes of text that neither begins nor ends with white space. */
export const reference = (text) => {
  const size = Buffer.byteLength(text)
  demand(size >= 1 && size <= 64 && text.trim() === text, 'malformed', 'reference')
  visible(text)
  return text
}

/** invite makes a token. */
export const invite = (root, reader, text, expires) => {
  const { cipher, mac } = keys(root)
  const nonce = nonceOf(mac, reader, u64(expires), reference(text))
  const c = createCipheriv('aes-256-gcm', cipher, nonce).setAAD(encode('invitation', reader))
  return { cipher_key: cipher, mac_key: mac, token: Buffer.concat([nonce, c.update(u64(expires)), c.update(text), c.final(), c.getAuthTag()]) }
}

/** open reads a token of one's own. */
export const open = (root, reader, token) => {
  demand(token.length >= 12 + 8 + 16, 'open')
  const { cipher, mac } = keys(root)
  const nonce = token.subarray(0, 12)
  const d = createDecipheriv('aes-256-gcm', cipher, nonce).setAAD(encode('invitation', reader)).setAuthTag(token.subarray(-16))
  let plain
  try {
    plain = Buffer.concat([d.update(token.subarray(12, -16)), d.final()])
  } catch {
    demand(false, 'open')
  }
  demand(equal(nonceOf(mac, reader, plain.subarray(0, 8), plain.subarray(8)), nonce), 'open', 'nonce')
  return { expires: plain.readBigUInt64BE(), reference: plain.subarray(8).toString() }
}
