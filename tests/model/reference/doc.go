// Package reference is the small model that a Sallyport is held against: from a record of what owners asked for and were told, it says
// which outcomes of which reads the newest accepted documents allow. It is written from the specification (policies/SPECIFICATION.md and
// the order of reasons in the design) and shares no code with the product: it imports the standard library only, and the architecture
// test keeps it so.
//
// # What it knows
//
// A [Event] is something that somebody did, with the time it began, the time it was answered, and the answer. The model turns an owner's
// events, and a writer's, into writes to registers:
//
//   - what an author says about a field, written by publishing and removing. The owner is an author, and so is whom the owner lets write; to adopt or to reject what
//     another wrote is to publish a value that was there before. Of several authors' values the newest counts;
//   - the permission of a reader for a field, written by granting, by answering a request for consent, by revoking and withdrawing, and by the reader who gives it up; and
//     that of a writer;
//   - whether all reading of an owner is stopped, written by freezing and thawing. A thaw that waited on its device ends no freeze that came after it was asked for;
//   - whether all that a reader has of an owner is suspended, written by the reader, and by the owner's device that hears of it and grants the same to the new keys.
//
// Rotation writes no register: it changes keys and nothing that anybody may or may not read. Nor does replacing the root, but that values may be published anew, as
// what they were, and that the owner's other devices are of no use until they are made anew.
//
// # What an answer means
//
// A write that was acknowledged took effect between its beginning and its answer. One whose outcome is unknown, because something was killed
// meanwhile, took effect then or at any later time, until an answer settles it: the device that asked for it keeps it and finishes it before
// it does anything else, so the next success of that device bounds it; and so does the first read that shows it. A write that was
// refused on the device itself never took effect. What a writer is told was accepted while the field moved to other keys, or the permission ended, may never count.
//
// # The rule
//
// A read is right if there was a state between its beginning and its end that allows its outcome (linearizability). For a register that
// is: the write that explains the outcome had begun before the read ended, and no later write was over before the read began. A write is later
// than another if it began after the other was over, or if the same device asked for it later. The vault's version numbers say
// in which order values really came, so that of concurrent writes one order is checked, the real one: a version never stands for
// two values, nor a value for two versions; versions grow with time, in the eyes of all readers together; what was published at once is
// seen at once.
//
// Time, purpose and limits of a grant are checked with what the clock leaves open: documents count in seconds, so that one second
// at each boundary is either way.
package reference
