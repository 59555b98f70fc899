// RFC 6962 section 2.1 with SHA-256: the trees of section 5 (manifests) and 9 (the key-use log) of the specification.

import { demand, sha256 } from './encodings.js'

/** The hash of a leaf. RFC 6962 section 2.1. */
export const leafHash = (leaf) => sha256(Buffer.from([0]), leaf)
const node = (left, right) => sha256(Buffer.from([1]), left, right)

const split = (n) => {
  let k = 1
  while (k * 2 < n) k *= 2
  return k
}

/** The root over leaf hashes. RFC 6962 section 2.1. */
export const root = (hashes) => {
  if (hashes.length === 0) return sha256()
  if (hashes.length === 1) return hashes[0]
  const k = split(hashes.length)
  return node(root(hashes.slice(0, k)), root(hashes.slice(k)))
}

/** The audit path of one leaf, from the leaf upwards. RFC 6962 section 2.1.1. */
export const path = (hashes, index) => {
  if (hashes.length === 1) return []
  const k = split(hashes.length)
  return index < k ? [...path(hashes.slice(0, k), index), root(hashes.slice(k))] : [...path(hashes.slice(k), index - k), root(hashes.slice(0, k))]
}

/** verifyPath refuses a path that does not lead from the leaf's hash to the root. RFC 9162 section 2.1.3.2. */
export const verifyPath = (hash, index, size, proof, expected) => {
  demand(index < size, 'proof', 'index beyond the size')
  let fn = index
  let sn = size - 1n
  let r = hash
  for (const p of proof) {
    demand(sn !== 0n && p.length === 32, 'proof', 'path too long')
    if (fn & 1n || fn === sn) {
      r = node(p, r)
      while (!(fn & 1n) && fn !== 0n) {
        fn >>= 1n
        sn >>= 1n
      }
    } else r = node(r, p)
    fn >>= 1n
    sn >>= 1n
  }
  demand(sn === 0n && r.equals(expected), 'proof', 'root')
}
