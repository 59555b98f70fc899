// Section 3 of the specification, "Signatures and envelopes": composite signatures and DSSE.

import { createHash, createPrivateKey, createPublicKey, sign as nodeSign, verify as nodeVerify } from 'node:crypto'
import { ml_dsa65 } from '@noble/post-quantum/ml-dsa'
import { demand, sha256 } from './encodings.js'
import { bytes, listOf, object, parse, text, write } from './json.js'

export const COMPOSITE_KEY_SIZE = 1984
const MLDSA_KEY_SIZE = 1952
const MLDSA_SIGNATURE_SIZE = 3309
const PREFIX = Buffer.from('CompositeAlgorithmSignatures2025')
const LABEL = Buffer.from('COMPSIG-MLDSA65-Ed25519-SHA512')
const ENVELOPE_SIZE = 1048576

const ed25519Private = (seed) =>
  createPrivateKey({ key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]), format: 'der', type: 'pkcs8' })
const ed25519Public = (raw) =>
  createPublicKey({ key: Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), raw]), format: 'der', type: 'spki' })

/** An Ed25519 key from its seed: { public, sign }. */
export const ed25519Key = (seed) => {
  const key = ed25519Private(seed)
  return {
    public: createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32),
    sign: (message) => nodeSign(null, message, key),
  }
}

/** Ed25519 verification, RFC 8032 without the cofactor. */
export const ed25519Verify = (key, message, signature) => {
  if (key.length !== 32 || signature.length !== 64) return false
  return nodeVerify(null, message, ed25519Public(key), signature)
}

/** M' of section 3. */
export const representative = (message, context) =>
  Buffer.concat([PREFIX, LABEL, Buffer.from([context.length]), context, createHash('sha512').update(message).digest()])

/** A composite key from its two seeds: { public, sign(message, context) }. Section 3. */
export const compositeKey = (mldsaSeed, ed25519Seed) => {
  const { publicKey, secretKey } = ml_dsa65.keygen(mldsaSeed)
  const ed = ed25519Key(ed25519Seed)
  return {
    public: Buffer.concat([publicKey, ed.public]),
    sign: (message, context) => {
      const m = representative(message, context)
      return Buffer.concat([ml_dsa65.sign(secretKey, m, LABEL), ed.sign(m)])
    },
  }
}

/** Both parts must verify. Section 3. */
export const compositeVerify = (key, message, context, signature) => {
  demand(key.length === COMPOSITE_KEY_SIZE, 'malformed', 'signing key')
  demand(signature.length === MLDSA_SIGNATURE_SIZE + 64, 'signature', 'size')
  const m = representative(message, context)
  const first = ml_dsa65.verify(key.subarray(0, MLDSA_KEY_SIZE), m, signature.subarray(0, MLDSA_SIGNATURE_SIZE), LABEL)
  const second = ed25519Verify(key.subarray(MLDSA_KEY_SIZE), m, signature.subarray(MLDSA_SIGNATURE_SIZE))
  demand(first && second, 'signature')
}

const payloadType = (type) => `application/vnd.sallyport.${type}.v1+json`

/** PAE of DSSE protocol 1. */
export const pae = (type, payload) => {
  const name = Buffer.from(payloadType(type))
  return Buffer.concat([Buffer.from(`DSSEv1 ${name.length} `), name, Buffer.from(` ${payload.length} `), payload])
}

/** ctx of section 3. */
export const context = (type) => Buffer.from(`sallyport/v1/${type}`)

/** A document's hash. Section 3. */
export const documentHash = (type, payload) => sha256(pae(type, payload))

const envelope = object({
  payloadType: text,
  payload: bytes(),
  signatures: listOf(object({ keyid: text, sig: bytes() }), 1, 2),
})

/** read reads an envelope's form: { type, payload, signature, second, hash }; only a succession has a second signature. Section 3. */
export const read = (raw) => {
  demand(raw.length <= ENVELOPE_SIZE, 'malformed', 'too large')
  const e = envelope(parse(raw))
  const named = /^application\/vnd\.sallyport\.([a-z-]{1,32})\.v1\+json$/.exec(e.payloadType)
  demand(named, 'malformed', 'payloadType')
  demand(e.payload.length > 0, 'malformed', 'no payload')
  demand(e.signatures.length === (named[1] === 'succession' ? 2 : 1), 'malformed', 'number of signatures')
  return { type: named[1], payload: e.payload, signature: e.signatures[0].sig, second: e.signatures[1]?.sig, hash: documentHash(named[1], e.payload) }
}

/** The types that a session signs. Section 4. */
const bySession = (type) => type === 'read' || type === 'evidence'

/** verify checks a read envelope's signature: composite, or for `read` and `evidence` the session's Ed25519 key; of a succession both. Section 3. */
export const verify = (e, key, second) => {
  demand((second !== undefined) === (e.type === 'succession'), 'signature', 'two keys')
  const message = pae(e.type, e.payload)
  if (bySession(e.type)) demand(ed25519Verify(key, message, e.signature), 'signature')
  else compositeVerify(key, message, context(e.type), e.signature)
  if (second) compositeVerify(second, message, context(e.type), e.second)
}

/** make signs a payload. What a session signs is signed by its Ed25519 key over the PAE itself. Section 3. */
export const make = (document, key) => {
  const payload = Buffer.from(write(document))
  const { type } = document
  const message = pae(type, payload)
  const sig = bySession(type) ? key.sign(message) : key.sign(message, context(type))
  return { bytes: Buffer.from(write({ payloadType: payloadType(type), payload, signatures: [{ sig }] })), hash: sha256(message) }
}
