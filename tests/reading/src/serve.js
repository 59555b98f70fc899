// The process that the Go tests talk to: a line of JSON in, a line of JSON out. A request names an operation of the vectors, of
// make.js, or a method of one of the parties; parties ask for HTTP requests to be carried by a line of their own.
//
//   {"file": "item", "operation": "open", "in": {...}}    -> {"expect": "ok", "out": {...}} or {"expect": "open", "why": "..."}
//   {"party": "alice", "operation": "publish", "in": ...} -> any number of {"http": {...}}, each answered by {"status", "body"}, then as above

import { createInterface } from 'node:readline'
import { Refusal } from './encodings.js'
import { making } from './make.js'
import { operations, plain } from './operations.js'
import { Owner, Reader } from './parties.js'

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const say = (value) => process.stdout.write(JSON.stringify(value) + '\n')
const hear = async () => {
  const { value, done } = await lines.next()
  return done ? null : JSON.parse(value)
}

const http = async ({ method, url, headers, body }) => {
  say({ http: { method, url, headers, body: body.toString('base64') } })
  const answer = await hear()
  return { status: answer.status, body: Buffer.from(answer.body, 'base64') }
}

const parties = new Map()
const begin = { owner: (i) => new Owner(i.join, http), reader: (i) => new Reader(i.name, i.join, http) }

const work = ({ file, party, operation, in: input }) => {
  if (!party) return (file === 'make' ? making : operations[file])[operation](input)
  if (begin[operation]) parties.set(party, begin[operation](input))
  else return parties.get(party)[operation](input)
  return parties.get(party).join()
}

for (let request; (request = await hear()); ) {
  try {
    say({ expect: 'ok', out: plain(await work(request)) })
  } catch (e) {
    say(e instanceof Refusal ? { expect: e.kind, why: e.message } : { expect: 'crash', why: e.stack })
  }
}
