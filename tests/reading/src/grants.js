// Section 6 of the specification, "Grants and re-encryption": d, rk, the wrapped key, and the reader's opening.

import { constants, createPublicKey, publicEncrypt } from 'node:crypto'
import { as, demand, encode, fieldName, sha256 } from './encodings.js'
import { decompress, fromPKCS8, isZero, lift, multiplyX, quotient, scalar, toPKCS8 } from './p256.js'
import { openWith, parseLeaf } from './items.js'
import { decapsulate, hpkeOpen, hpkeSeal } from './xwing.js'

const infoOfGrant = (grant, reader, s) => encode('grant', grant, s.owner, reader, s.field, s.epoch, s.author)

/** d of one field: point 2. Zero is refused. */
export const grantScalar = (ss, grant, reader, s) => {
  const d = scalar(ss, infoOfGrant(grant, reader, s))
  demand(!isZero(d), 'key', 'd of zero')
  return d
}

/** rk = a / d: point 2. */
export const reencryptionKey = (a, d) => quotient(a, d)

const OAEP = { 'SHA-1': 'sha1', 'SHA-256': 'sha256' }

/** The import key of a token for a custody, as the vault document names it. Points 3 and section 4. */
export const importKey = (token, custody) => {
  const key = token.import_keys.find((k) => k.custody === custody)
  demand(key, 'key', 'no import key for this custody')
  return key
}

/** wrap makes a re-encryption key ready for one token: { wrapped, entry of keys[] }. Point 3. */
export const wrap = (rk, token, key) => {
  demand(Object.hasOwn(OAEP, key.oaep_hash), 'key', 'OAEP hash')
  demand(key.path === 'oaep-direct', 'key', 'import path')
  const spki = createPublicKey({ key: key.public_key, format: 'der', type: 'spki' })
  const wrapped = publicEncrypt({ key: spki, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: OAEP[key.oaep_hash] }, toPKCS8(rk))
  const entry = { token: token.serial, import_key: sha256(key.public_key).toString('hex'), path: key.path, digest: sha256(wrapped).toString('hex') }
  return { wrapped, entry }
}

/** The info of an import: point 4. */
export const importInfo = (vault, grantHash, field, epoch, author) => encode('import', vault, grantHash, fieldName(field), epoch, author)

/** The info of the points of a write grant: section 4. fields and epochs are bytes, in the order of the list. */
export const writeInfo = (vault, grant, owner, writer, fields, epochs) =>
  encode('write-grant', vault, grant, owner, writer, ...fields.flatMap((f, i) => [f, epochs[i]]))

/** sealImport seals a wrapped key to the vault: point 4. */
export const sealImport = (hpkeKey, info, wrapped) => hpkeSeal(hpkeKey, info, wrapped)

/** The info of a sealed message from one identity to another. */
export const messageInfo = (type, from, to) => {
  demand(/^[a-z-]{1,32}$/.test(type), 'malformed', 'document type')
  return encode('message', type, from, to)
}
export const sealMessage = (kemKey, type, from, to, plaintext) => hpkeSeal(kemKey, messageInfo(type, from, to), plaintext)
export const openMessage = (kemSeed, type, from, to, blob) => hpkeOpen(kemSeed, messageInfo(type, from, to), blob)

/** A key's name in the token. */
export const keyID = (grant, field, author) => sha256(encode('key-id', grant, field, author))

/** reencrypt is the token's work: x(rk E). */
export const reencrypt = (pkcs8, capsule) => multiplyX(fromPKCS8(pkcs8), capsule.subarray(0, 33))

/** checkPoint accepts exactly what decompress gives. */
export const checkPoint = (capsule, point) => demand(decompress(capsule.subarray(0, 33)).equals(point), 'point')

/** openReleased is the reader's opening: Z = x(d lift(E')), and on as in section 5. Every failure looks alike. */
export const openReleased = ({ readerSeed, ct, grant, owner, reader, leaf: leafBytes, ciphertext, x }) =>
  as('open', () => {
    const leaf = parseLeaf(leafBytes)
    demand(leaf.owner.equals(owner), 'open', 'owner')
    const d = grantScalar(decapsulate(readerSeed, ct), grant, reader, leaf)
    demand(x.length === 32, 'open', "E'")
    const Z = multiplyX(d, lift(x))
    return { d, Z, value: openWith(Z, leaf, ciphertext) }
  })
