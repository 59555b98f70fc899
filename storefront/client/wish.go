package client

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/writing"
)

// What a person wishes waits on one device while nobody can be reached. If the same person decides about the same thing on another device meanwhile, then the later decision
// counts, whichever the vault hears first. Documents are dated when the person decided, not when they were built: one that this device did not know when it was asked, and that
// has a later date, overtakes what waits. A wish that is overtaken is not carried out, and the person is told.
//
// That is so of what is given to others. Of two values of a field the newest by the vault's order counts, as everywhere.

// ErrOvertaken: it waited on this device, and on another one the person decided otherwise later.
var ErrOvertaken = errors.New("you decided otherwise on another device since, and that counts; do it again if you want it all the same")

// Overtaken is an [ErrOvertaken] that says what was not given: contacts by alias, each with its fields.
type Overtaken struct{ What string }

// Error is the message.
func (e *Overtaken) Error() string { return e.What + ": " + ErrOvertaken.Error() }

// Unwrap is [ErrOvertaken].
func (e *Overtaken) Unwrap() error { return ErrOvertaken }

// wished reports whether a task gives somebody fields because the person asked for it.
func (t *task) wished() bool { return t.Wished != 0 }

// overrule notes that another device decided about fields that this one waits to give somebody.
func (o *Owner) overrule(at int64, kind func(*task) bool, to policies.ReaderID, f policies.Field) {
	for i := range o.state.Tasks {
		t := &o.state.Tasks[i]
		if t.wished() && kind(t) && t.Reader == to && at > t.Wished && slices.Contains(t.Fields, f) && !slices.Contains(t.Later, f) {
			t.Later = append(t.Later, f)
		}
	}
}

func (t *task) reads() bool  { return t.Kind == taskGrant }
func (t *task) writes() bool { return t.Kind == taskWrite || t.Kind == taskFollow }

// heedGrant notes what another device's grant decides. One on terms that there were before decides nothing: it carries them over to newer keys.
func (o *Owner) heedGrant(g *policies.Grant) {
	for i := range g.Fields {
		f := &g.Fields[i]
		before := slices.ContainsFunc(o.state.Grants, func(have ownedGrant) bool {
			_, ok := have.Doc.Field(f.Field, f.Author)
			return ok && have.Doc.Reader == g.Reader && termsOf(&have.Doc) == termsOf(g)
		})
		if f.Author == o.author() && !before {
			o.overrule(g.Time, (*task).reads, g.Reader, f.Field)
		}
	}
}

// heedRevocation notes what another device's revocation decides.
func (o *Owner) heedRevocation(r *policies.Revocation) {
	if r.Reason != policies.ReasonWithdrawn {
		return
	}
	for _, item := range r.Items {
		for i := range o.state.Grants {
			g := &o.state.Grants[i]
			if f, ok := g.Doc.Field(item.Field, item.Author); ok && g.Doc.ID == item.Grant && g.live(f) {
				o.overrule(r.Time, (*task).reads, g.Doc.Reader, item.Field)
			}
		}
	}
}

// heedWriteGrant is heedGrant for permissions to write.
func (o *Owner) heedWriteGrant(g *writing.Grant) {
	for _, w := range g.Fields {
		before := slices.ContainsFunc(o.state.Writers, func(have ownedWriteGrant) bool {
			_, ok := have.Doc.Epoch(w.Field)
			return ok && have.Doc.Writer == g.Writer && have.Doc.Purpose == g.Purpose && have.Doc.NotBefore == g.NotBefore && have.Doc.Expires == g.Expires
		})
		if !before {
			o.overrule(g.Time, (*task).writes, policies.ReaderID(g.Writer), w.Field)
		}
	}
}

// heedWriteEnd is heedRevocation for permissions to write. The end of one that a newer one took the place of decides nothing.
func (o *Owner) heedWriteEnd(d *writing.End) {
	for _, item := range d.Items {
		for i := range o.state.Writers {
			g := &o.state.Writers[i]
			if newest := o.writeGrantOf(d.Writer, item.Field); g.Doc.ID == item.Grant && g.live(item.Field) && newest == g {
				o.overrule(d.Time, (*task).writes, policies.ReaderID(d.Writer), item.Field)
			}
		}
	}
}

// withdraw takes out of the first task what was decided otherwise later, and reports whether that was something. The caller saves.
func (o *Owner) withdraw() bool {
	t := &o.state.Tasks[0]
	gone := slices.DeleteFunc(slices.Clone(t.Later), func(f policies.Field) bool { return !slices.Contains(t.Fields, f) })
	if t.Later = nil; len(gone) == 0 {
		return false
	}
	o.state.Overtaken = append(o.state.Overtaken, overtakenWish{t.Reader, gone})
	if t.Fields = without(t.Fields, gone); len(t.Fields) == 0 {
		o.state.Tasks = slices.Delete(o.state.Tasks, 0, 1)
	}
	return true
}

// overtakenWish is what waited and was not given.
type overtakenWish struct {
	Reader policies.ReaderID `json:"reader"`
	Fields []policies.Field  `json:"fields"`
}

// told adds to the outcome of a grant, or of a look at everything, what was not given, once. Other operations do not tell of it: that they were done is what their answer says.
func (o *Owner) told(err error) error {
	if len(o.state.Overtaken) == 0 {
		return err
	}
	var what []string
	for _, one := range o.state.Overtaken {
		name := one.Reader.String()
		if c, ok := o.contact(one.Reader); ok {
			name = c.Alias
		}
		for _, f := range one.Fields {
			name += " " + string(f)
		}
		what = append(what, name)
	}
	o.state.Overtaken = nil
	return errors.Join(err, &Overtaken{strings.Join(what, ", ")}, o.save())
}

// decided is the time of the document of a task: when the person decided it, if they did. What is built anew because another document came first was not decided anew.
func (o *Owner) decided(t *task) time.Time {
	if t.Wished != 0 {
		return time.Unix(t.Wished, 0)
	}
	return o.now()
}
