// Section 1 of the specification, last paragraph: JSON from outside, read strictly. JSON.parse keeps the last of two members
// of one name and rounds large integers, so the text is read here, and then against a shape.

import { Refusal, base64, demand, hex } from './encodings.js'

const malformed = (what) => new Refusal('malformed', `JSON: ${what}`)
const ESCAPES = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }
const MAX_DEPTH = 16

/** parse reads one JSON value: objects become Maps, integers bigints. There are no fractions in any format of ours. Section 1. */
export const parse = (bytes) => {
  let text
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw malformed('not UTF-8')
  }
  let at = 0
  const space = () => {
    while (' \t\r\n'.includes(text[at] ?? '.')) at++
  }
  const take = (word) => {
    if (!text.startsWith(word, at)) throw malformed(`no ${word} at ${at}`)
    at += word.length
  }
  const string = () => {
    take('"')
    let out = ''
    for (;;) {
      const c = text[at++]
      if (c === undefined || c < ' ') throw malformed('string')
      if (c === '"') break
      if (c !== '\\') {
        out += c
        continue
      }
      const e = text[at++]
      if (e === 'u') {
        const digits = text.slice(at, at + 4)
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw malformed('escape')
        out += String.fromCharCode(parseInt(digits, 16))
        at += 4
      } else if (Object.hasOwn(ESCAPES, e ?? '')) out += ESCAPES[e]
      else throw malformed('escape')
    }
    if (/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(out)) throw malformed('half a surrogate pair')
    return out
  }
  const list = (open, close, item) => {
    take(open)
    space()
    if (text[at] === close) return void at++
    for (;;) {
      space()
      item()
      space()
      if (text[at] === close) return void at++
      take(',')
    }
  }
  const value = (depth) => {
    if (depth > MAX_DEPTH) throw malformed('depth')
    const c = text[at]
    if (c === '{') {
      const members = new Map()
      list('{', '}', () => {
        const name = string()
        if (members.has(name)) throw malformed(`${name} twice`)
        space()
        take(':')
        space()
        members.set(name, value(depth + 1))
      })
      return members
    }
    if (c === '[') {
      const items = []
      list('[', ']', () => items.push(value(depth + 1)))
      return items
    }
    if (c === '"') return string()
    for (const [word, meaning] of [['true', true], ['false', false], ['null', null]])
      if (text.startsWith(word, at)) {
        at += word.length
        return meaning
      }
    const number = /^(?:0|-?[1-9][0-9]*)/.exec(text.slice(at, at + 24))
    if (!number || /^[0-9.eE]/.test(text.slice(at + number[0].length))) throw malformed('value')
    at += number[0].length
    return BigInt(number[0])
  }
  space()
  const result = value(0)
  space()
  if (at !== text.length) throw malformed('bytes after the value')
  return result
}

// Shapes: functions from what parse gave to what the type demands, or a Refusal. A member that is absent or null counts as
// zero, false, empty text, no bytes, an empty list; where that is not allowed its shape says so. Section 1.

export const text = (v) => {
  demand(typeof (v ??= '') === 'string', 'malformed', 'not text')
  return v
}
export const oneOf = (...words) => (v) => {
  demand(words.includes(v), 'malformed', `not one of ${words}`)
  return v
}
export const flag = (v) => {
  demand(typeof (v ??= false) === 'boolean', 'malformed', 'neither true nor false')
  return v
}
/** An integer from least to most. */
export const integer = (least, most) => (v) => {
  demand(typeof (v ??= 0n) === 'bigint' && v >= least && v <= most, 'malformed', 'number')
  return v
}
/** An id, hash or nonce, as hexadecimal text of so many bytes; all zeroes if absent. */
export const digitsOrZeroes = (size) => (v) => {
  hex((v ??= '00'.repeat(size)), size)
  return v
}
/** The same where it must name something. */
export const digits = (size) => (v) => {
  demand(!/^0*$/.test(digitsOrZeroes(size)(v)), 'malformed', 'all zeroes')
  return v
}
/** Bytes in base64, of one size if a size is given. */
export const bytes = (size) => (v) => {
  const b = base64(v ?? '')
  demand(size === undefined || b.length === size, 'malformed', `not ${size} bytes`)
  return b
}
export const listOf = (shape, least, most) => (v) => {
  demand(Array.isArray((v ??= [])) && v.length >= least && v.length <= most, 'malformed', 'list')
  return v.map(shape)
}
/** An object with these members and no other. */
export const object = (members) => (v) => {
  demand((v ??= new Map()) instanceof Map, 'malformed', 'not an object')
  for (const name of v.keys()) demand(Object.hasOwn(members, name), 'malformed', `unknown member ${name}`)
  return Object.fromEntries(Object.entries(members).map(([name, shape]) => [name, shape(v.get(name))]))
}

/** An object of any members of one shape, whose names are asked too. */
export const record = (name, shape) => (v) => {
  demand((v ??= new Map()) instanceof Map, 'malformed', 'not an object')
  return Object.fromEntries([...v].map(([k, x]) => [name(k), shape(x)]))
}

/** write makes JSON: bigints are integers, Buffers base64, undefined members absent, Maps what parse read. Section 1. */
export const write = (value) => {
  if (typeof value === 'bigint') return value.toString()
  if (Buffer.isBuffer(value)) return JSON.stringify(value.toString('base64'))
  if (Array.isArray(value)) return `[${value.map(write)}]`
  if (value && typeof value === 'object')
    return `{${(value instanceof Map ? [...value] : Object.entries(value))
      .filter(([, v]) => v !== undefined)
      .map(([k, v]) => `${JSON.stringify(k)}:${write(v)}`)}}`
  return JSON.stringify(value)
}
