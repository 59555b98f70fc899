// Package views answers questions about a published key-use log quickly: who read what, when, and with what outcome.
//
// # The normal path
//
// [Open] opens an index, a folder of its own beside the log. [Index.Update] adds what the log has gained since; the first time that is all of it.
// [Index.Search] gives the entries that a [Query] asks for, newest first, a page at a time; [Index.Count] counts them by reader, owner, field, day, kind or outcome.
// What is found are indexes: the entry itself, with what opens it, comes from the log ([audit.Log.Include]), and [Sentence] says it in plain words.
//
// # Why columns
//
// Each property of an entry is a column, a file of fixed-width numbers in the order of the log; words and identities have a dictionary. A query reads only the columns that
// it asks about, from the newest block to the oldest, and stops when a page is full. Ten million entries are 40 MB a column, which one processor
// reads in a few hundredths of a second; so there is nothing to tune and nothing to keep sorted, and adding an entry is an append.
//
// # Trust
//
// The index is made from the log and is worth nothing by itself: it can be deleted at any time, and is made anew. It names the checkpoint that it was made from, and is thrown
// away if the log is not a continuation of that. Blocks carry checksums, which find what a disk did, not what an
// intruder did who can write there: keep it where only you can. It holds no value and no key, but it says who dealt with whom: it is as confidential as the log's bodies.
//
// An update that is cut short never happened: the state names how long each column is, and is written last.
package views
