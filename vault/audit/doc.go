// Package audit verifies a published key-use log away from the vault that wrote it, and shares nothing with that vault but the language of
// documents, policies. The parser of bundles and bodies, the tree and the replay are its own: what it says is a second opinion.
//
// # The normal path
//
// A [Source] is where the log lies: a [Folder], or a [URL]. [Open] reads the checkpoint and verifies its two lines, the token's and the host's, under the vault document, which the auditor has
// from the ceremony or pins by its link. Then [Log.Verify] holds every byte against that checkpoint:
//
//   - each leaf's hash against the hash tile that lies there, each tile against the one above, the topmost against the signed root;
//   - the form of each entry, and that times never go backwards;
//   - for each body that is there, that the entry commits to it, and that the document in it is the one that the details name.
//
// The first thing that is wrong ends it: a [*DamageError] names the file, the entry, and what is wrong with it. [Log.Records] goes over the records,
// [Log.Consistent] shows that an older checkpoint is a beginning of this log, [Log.Include] that one entry is in it, from hash tiles alone, [Log.Proven] the same for many.
//
// [Log.Recheck] decides every release anew, from the log and the signed documents in it alone: grant, session, request, nonce, time, head and limits, with the
// same pure function that the vault asked, policies.Check. It ends with a [Report]: what is justified, what is not, what cannot be checked, and why.
// The report rests on no clock and no order of a map: two runs give the same bytes. README.md shows what each finding looks like.
//
// # What it proves, and what it does not
//
// That the log is whole, in its order, and what the token signed. Not that it is the only one: a fork shows when two checkpoints are compared, so keep
// those you have seen, and demand witnesses ([OpenWitnessed]). Not what was never logged: the token's own record shows that. Not that an item's leaf was under the head
// that the entry names, since the proof is not in the log: recheck sees slot, head and order of versions. Not that the vault's clock was right: witnesses
// bound it, and a report lists what depends on it. Bodies are beside the tree; one that was erased leaves the tree verifiable, and what it said cannot be known any more.
package audit
