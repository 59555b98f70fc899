// Section 5 of the specification, "Values": what people wrote, as it lies inside an item.

import { demand, fieldName } from './encodings.js'
import { integer, listOf, object, oneOf, parse, record, text, write } from './json.js'

const texts = listOf(text, 0, Infinity)
const present = (shape) => (v) => (v === undefined || v === null ? undefined : shape(v))
const MEMBER = { text: 'text', uri: 'text', date: 'text', raw: 'text', list: 'list', parts: 'parts' }

const value = object({
  v: integer(1n, 1n),
  type: oneOf(...Object.keys(MEMBER)),
  text: (v) => text(v) || undefined,
  list: present(texts),
  parts: present(record(text, texts)),
  vcard: present(object({ group: text, params: present(record(text, texts)) })),
})

/** parseValue reads a value strictly. */
export const parseValue = (bytes) => {
  const v = value(parse(bytes))
  for (const member of ['text', 'list', 'parts']) demand(v[member] === undefined || member === MEMBER[v.type], 'malformed', `a ${v.type} with ${member}`)
  for (const name of Object.keys(v.parts ?? {})) fieldName(name)
  return v
}

/** textValue writes a text as a value. */
export const textValue = (text) => Buffer.from(write({ v: 1n, type: 'text', text }))
