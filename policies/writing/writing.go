// Package writing is how an owner lets somebody else write fields: the documents, and what counts of what was written.
//
// A [Grant] makes somebody an author of some fields, an [End] ends that; both are links of the owner's chain. The author signs manifests of its own, per owner, and seals
// items with the points that the grant carries sealed: it can read nothing by them, not even what it wrote. A manifest shows nobody what is in it, so there are two
// decisions, both pure. [CheckAuthor]: may this author publish now? [Check]: does this item count? The vault asks the first when a manifest comes and the second
// when somebody reads. A third, [CheckEnd], is about the end of a grant. An auditor asks all of them again.
//
// Of several authors' items the newest by the vault's order counts (policies.AnswerItem).
package writing

import (
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/policies"
)

// Grant makes somebody else an author of an owner's fields: a link of the owner's chain. The writer signs manifests of its own, and can read nothing by
// it, not even what it wrote.
type Grant struct {
	policies.Header
	Audience      policies.VaultID  `json:"aud"`
	Owner         policies.OwnerID  `json:"owner"`
	policies.Link                   // seq, prev
	Writer        policies.AuthorID `json:"writer"`
	Purpose       string            `json:"purpose"`    // 1 to 200 bytes
	NotBefore     int64             `json:"not_before"` // Unix seconds, inclusive
	Expires       int64             `json:"expires"`    // Unix seconds, exclusive
	Fields        []Field           `json:"fields"`
	Sealed        []byte            `json:"sealed"` // HPKE to the writer's identity: the point of each field's slot, 33 bytes each, in the order of fields
}

// Field is one field of a write grant, and the epoch that is written.
type Field struct {
	Field policies.Field `json:"field"`
	Epoch uint64         `json:"epoch"`
}

// Info binds the sealed points: to vault, grant, both parties, and the list, in its order.
func (d *Grant) Info() []byte {
	fields := [][]byte{d.Audience[:], d.ID[:], d.Owner[:], d.Writer[:]}
	for _, f := range d.Fields {
		fields = append(fields, []byte(f.Field), policies.U64(f.Epoch))
	}
	return policies.Encode("write-grant", fields...)
}

// Epoch is the epoch in which the grant lets a field be written.
func (d *Grant) Epoch(f policies.Field) (uint64, bool) {
	for _, w := range d.Fields {
		if w.Field == f {
			return w.Epoch, true
		}
	}
	return 0, false
}

// sealedPoints is the length of the sealed message for so many points: the X-Wing encapsulation, the points, the tag.
func sealedPoints(n int) int { return policies.KEMCiphertextSize + 33*n + 16 }

// Validate checks the form.
func (d *Grant) Validate() error {
	if err := d.Check("write-grant"); err != nil {
		return err
	}
	if err := d.CheckText("the purpose", d.Purpose, 1, 200); err != nil {
		return err
	}
	bad := func(what string) error { return fmt.Errorf("%w: write grant: %s", policies.ErrMalformed, what) }
	switch {
	case d.Audience.IsZero() || d.Owner.IsZero() || d.Writer.IsZero() || d.Seq == 0:
		return bad("vault, owner, writer and seq are needed")
	case policies.AuthorID(d.Owner) == d.Writer:
		return bad("an owner writes without one")
	case d.NotBefore <= 0 || d.Expires <= d.NotBefore:
		return bad("not_before must be before expires")
	case len(d.Fields) < 1 || len(d.Fields) > policies.MaxGrantFields:
		return bad(fmt.Sprintf("1 to %d fields are allowed", policies.MaxGrantFields))
	case len(d.Sealed) != sealedPoints(len(d.Fields)):
		return bad(fmt.Sprintf("the sealed points of %d fields have %d bytes", len(d.Fields), sealedPoints(len(d.Fields))))
	}
	for i, f := range d.Fields {
		if err := f.Field.Validate(); err != nil {
			return fmt.Errorf("write grant: %w", err)
		}
		if f.Epoch == 0 {
			return bad("epochs count from 1")
		}
		if slices.ContainsFunc(d.Fields[:i], func(o Field) bool { return o.Field == f.Field }) {
			return bad("a field appears twice")
		}
	}
	return nil
}

// End ends fields of one writer's grants for ever: a link of the owner's chain. What the writer publishes after it does not count for these fields.
type End struct {
	policies.Header
	Audience      policies.VaultID  `json:"aud"`
	Owner         policies.OwnerID  `json:"owner"`
	policies.Link                   // seq, prev
	Writer        policies.AuthorID `json:"writer"`
	Last          Last              `json:"last,omitzero"` // the newest of the writer's manifests that the owner goes by ([CheckEnd]); absent: none
	Items         []Ended           `json:"items"`
}

// Last names a manifest that the vault has accepted.
type Last struct {
	Version  uint64        `json:"version"`
	Manifest policies.Hash `json:"manifest"`
}

// Ended is one field of one write grant. Kept is the hash of the leaf, under the last manifest, that may be read on; absent: nothing of this
// writer's under this grant. A hash and not a version, because a writer who goes on with other fields could put something new under an old number.
type Ended struct {
	Grant policies.DocumentID `json:"grant"`
	Field policies.Field      `json:"field"`
	Kept  policies.Hash       `json:"kept,omitzero"`
}

// Validate checks the form.
func (d *End) Validate() error {
	if err := d.Check("write-end"); err != nil {
		return err
	}
	bad := func(what string) error { return fmt.Errorf("%w: write end: %s", policies.ErrMalformed, what) }
	switch {
	case d.Audience.IsZero() || d.Owner.IsZero() || d.Writer.IsZero() || d.Seq == 0:
		return bad("vault, owner, writer and seq are needed")
	case (d.Last.Version == 0) != d.Last.Manifest.IsZero():
		return bad("the last manifest has a version and a hash, or is absent")
	case len(d.Items) < 1 || len(d.Items) > policies.MaxRevokedItems:
		return bad(fmt.Sprintf("1 to %d items are allowed", policies.MaxRevokedItems))
	}
	for i, item := range d.Items {
		if err := item.Field.Validate(); err != nil {
			return fmt.Errorf("write end: %w", err)
		}
		if item.Grant.IsZero() {
			return bad("an item needs a grant")
		}
		if d.Last.Version == 0 && !item.Kept.IsZero() {
			return bad("nothing can be kept of a writer who never published")
		}
		if slices.ContainsFunc(d.Items[:i], func(o Ended) bool { return o.Grant == item.Grant && o.Field == item.Field }) {
			return bad("an item appears twice")
		}
	}
	return nil
}

// Standing is a write grant as it stands at some place of the log.
type Standing struct {
	Grant *Grant
	Index uint64                   // of the entry that accepted it
	Ended map[policies.Field]Ended // fields that were ended
}

// Item says where an item of an author who is not the owner stands: under which of that author's manifests it was proven.
type Item struct {
	Leaf     policies.Hash
	Field    policies.Field
	Epoch    uint64
	Version  uint64
	Head     uint64 // version of the author's newest manifest
	Index    uint64 // of the entry that accepted it
	Accepted int64  // when, Unix seconds by the log
}

// Check decides whether what somebody other than the owner wrote counts: whether one of the owner's write grants covers it. It is as pure as policies.Check.
//
// A grant that is not ended covers an item while the manifest under which it is proven was accepted after the grant and in its time. Of a field that was ended
// exactly the leaf is covered that the owner kept.
func Check(writings []Standing, w Item) error {
	if w.Version > w.Head {
		return policies.CodeLeaf // its version would be that of a manifest that is not there yet
	}
	code := policies.CodeNoWriteGrant
	for _, one := range writings {
		epoch, ok := one.Grant.Epoch(w.Field)
		if !ok {
			continue
		}
		ended, over := one.Ended[w.Field]
		switch {
		case over && !ended.Kept.IsZero() && ended.Kept == w.Leaf:
			return nil
		case over:
			code = policies.CodeWriteEnded
		case epoch != w.Epoch || w.Index < one.Index || w.Accepted < one.Grant.NotBefore:
		case w.Accepted >= one.Grant.Expires:
			code = policies.CodeWriteEnded
		default:
			return nil
		}
	}
	return code
}

// CheckEnd decides whether an end names a manifest that is new enough; head is the version of the writer's newest, 0 if there is none. Any that was accepted will do to stop
// a writer: one who published without a pause could hold up an end that had to name the newest. But where a newer grant takes the place of the one that ends, the writer
// goes on, and nobody wants to lose what it wrote since: that end must name the newest. It returns [policies.CodeHeadMoved] if it does not.
func CheckEnd(writings []Standing, d *End, head uint64) error {
	if d.Last.Version == head {
		return nil
	}
	type item struct {
		grant policies.DocumentID
		field policies.Field
	}
	ends := make(map[item]bool, len(d.Items))
	for _, e := range d.Items {
		ends[item{e.Grant, e.Field}] = true
	}
	stays := map[policies.Field]uint64{} // the index of the newest grant that lets the writer go on with a field
	for _, one := range writings {
		for _, w := range one.Grant.Fields {
			if _, over := one.Ended[w.Field]; !over && !ends[item{one.Grant.ID, w.Field}] {
				stays[w.Field] = max(stays[w.Field], one.Index)
			}
		}
	}
	for _, one := range writings {
		for _, w := range one.Grant.Fields {
			// What was ended before stays as it was ended first.
			if _, over := one.Ended[w.Field]; !over && ends[item{one.Grant.ID, w.Field}] && one.Index < stays[w.Field] {
				return policies.CodeHeadMoved
			}
		}
	}
	return nil
}

// CheckAuthor decides whether an author who is not the owner may publish at a time: whether any field of any write grant is in force. Which fields a manifest is
// about cannot be seen from it.
func CheckAuthor(writings []Standing, now int64) error {
	code := policies.CodeNoWriteGrant
	for _, one := range writings {
		switch {
		case len(one.Ended) == len(one.Grant.Fields), now >= one.Grant.Expires:
			code = policies.CodeWriteEnded
		case now < one.Grant.NotBefore:
			if code == policies.CodeNoWriteGrant {
				code = policies.CodeNotYet
			}
		default:
			return nil
		}
	}
	return code
}
