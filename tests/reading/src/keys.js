// Section 2 of the specification, "Keys": everything that comes from a root.

import { randomBytes } from 'node:crypto'
import { demand, encode, fieldName, hkdf, sha256 } from './encodings.js'
import { isZero, scalar } from './p256.js'
import { compositeKey } from './envelopes.js'
import { publicKey } from './xwing.js'

/** A slot of section 2: whose field, which, of which epoch, written by whom. Ids are 32 bytes. */
export const slot = ({ owner, field, epoch, author }) => {
  fieldName(field)
  for (const id of [owner, author]) demand(id.length === 32 && !isZero(id), 'malformed', 'id')
  demand(epoch >= 1n, 'malformed', 'epoch')
  return { owner, field, epoch, author }
}

/** The field key a of a slot. Section 2. */
export const fieldKey = (root, s) => {
  const { field, epoch, author } = slot(s)
  let a = scalar(root, encode('field', field, epoch, author))
  for (let counter = 1n; isZero(a); counter++) a = scalar(root, encode('field', field, epoch, author, counter))
  return a
}

/** A reader's X-Wing seed for one owner. Section 2. */
export const readerSeed = (root, owner, nonce) => hkdf(root, null, encode('reader', owner, nonce), 32)

/** The seeds and public keys of an identity, section 2; the recovery key (section 4) comes from no root. */
export const identityKeys = (root) => {
  const recovery = compositeKey(randomBytes(32), randomBytes(32))
  const seed = (use) => hkdf(root, null, encode(use), 32)
  const kemSeed = seed('identity-kem')
  const loginSeed = seed('login-kem')
  return {
    root,
    signing: compositeKey(seed('identity-mldsa65'), seed('identity-ed25519')),
    kemSeed,
    kemKey: publicKey(kemSeed),
    loginSeed,
    loginKey: publicKey(loginSeed),
    recoveryHash: sha256(recovery.public),
  }
}
