// Package export hands a published key-use log to a security team's own tools, an event for each entry: as JSON lines, OCSF or CEF, to a file, a pipe, or a
// syslog server over TLS. README.md says how to connect one, what each field means, and which entry becomes which event of OCSF.
//
// # The normal path
//
// An [Exporter] with a [Format] and an [Output]. [Exporter.Run] hands over what the log has gained since the cursor, [Exporter.Follow] goes on. Each entry is proven to be under
// the checkpoint that the vault signed before its event leaves; each checkpoint must continue the one that the cursor names. What is wrong is an event too, a [Fault],
// and ends the export.
//
// # Once, or at least once
//
// The cursor is a file. It names the next entry, the checkpoint up to which entries went out, and how long the output was. It is replaced after the
// output is safe, so that nothing is lost.
//
//   - To a [File]: nothing is doubled either. Events are synced before the cursor. What a crash left beyond the cursor is compared with the events that are due, which are the same
//     bytes again: what agrees stays, and from the first difference on, a torn line, the file is cut.
//   - To a [Syslog] server: at least once. Syslog acknowledges nothing, so a batch is a connection, and counts as received when the server, too, has closed it
//     in good order, which it does after it has read all of it. If that does not come, the whole batch goes out again.
//   - To a [Pipe]: at least once, as far as the other end keeps what it read.
//
// The uid of an event is made of the log's name and the entry's index, so a receiver can drop what it has.
//
// # What leaves, and what does not
//
// No value and no key is in the log, so none is here. Owners and readers are named by pseudonym and, where the log says so, by id; businesses by the name they gave themselves.
// With [Exporter.Pseudonyms], ids and names stay behind. Events are as confidential as the log's bodies.
//
// Some fields are in no entry but follow from those before: which revocation ended a grant before it was used, which grade a token had. So an export that begins
// in the middle reads the log from its beginning all the same, and hands over nothing of that.
package export
