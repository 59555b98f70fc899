package client

import (
	"context"

	"github.com/sallyport/sallyport/policies"
)

// While a document is on its way to the vault, the device makes what the ones behind it will need: it has nothing else to do, and the person waits for both.
// Nothing of that is sent or stored before its turn, and what it was made of tells then whether it still fits. Killed, the device makes it again.

// ahead is what was made before its turn, by the hash of the leaf that it was made of.
type ahead struct {
	rotated map[policies.Hash]policies.Leaf
	sealed  map[policies.Hash]sealedItem
}

type sealedItem struct {
	leaf       policies.Leaf
	ciphertext []byte
}

func (a *ahead) forget() { *a = ahead{} }

// meanwhile sends a document, and looks ahead until the answer is there.
func (o *Owner) meanwhile(send func() error) error {
	answer := make(chan error, 1)
	go func() { answer <- send() }()
	// Sending reads the state too, and writes nothing of what is looked at here.
	for range o.lookAhead {
		select {
		case err := <-answer:
			return err
		default:
		}
	}
	return <-answer
}

// lookAhead makes one thing after another for the tasks behind the first one, until it is told to stop.
func (o *Owner) lookAhead(more func() bool) {
	for i := range o.state.Tasks[1:] {
		switch t := &o.state.Tasks[1+i]; {
		case t.Kind == taskGrant || t.Kind == taskRevoke: // they change no item
		case t.Kind == taskPublish && len(t.Rotate) > 0:
			o.rotateAhead(t, more)
			return
		case t.Kind == taskReseal:
			o.sealAhead(t, more)
			return
		default:
			return
		}
	}
}

// rotateAhead rotates what the publication will.
func (o *Owner) rotateAhead(t *task, more func() bool) {
	rotate := map[policies.Field]bool{}
	for _, f := range t.Rotate {
		rotate[f] = true
	}
	for _, l := range o.leaves() {
		hash := l.Hash()
		if _, made := o.ahead.rotated[hash]; made || !rotate[l.Field] {
			continue
		}
		rotated, err := o.rotateLeaf(&l)
		if err != nil { // its turn will tell
			return
		}
		if o.ahead.rotated == nil {
			o.ahead.rotated = map[policies.Hash]policies.Leaf{}
		}
		if o.ahead.rotated[hash] = rotated; !more() {
			return
		}
	}
}

// sealAhead seals anew what the next publication of a replacement will, as the leaves will be when the first task is done.
func (o *Owner) sealAhead(t *task, more func() bool) {
	version := o.state.Manifest.Version + 1
	first := &o.state.Tasks[0]
	changed := map[policies.Field]policies.Leaf{}
	if first.Kind == taskPublish {
		version++
		for _, raw := range first.Changed {
			if l, err := policies.ParseLeaf(raw); err == nil {
				changed[l.Field] = l
			}
		}
	}
	offline, cancel := context.WithCancel(context.Background())
	cancel() // what is not in the mirror is fetched in its turn
	size := 0
	for _, l := range o.leaves() {
		if newer, ok := changed[l.Field]; ok {
			l = newer
		}
		hash := l.Hash()
		made, ok := o.ahead.sealed[hash]
		if !ok || made.leaf.Version != version {
			if len(t.Fields) > 0 && l.Field <= t.Fields[0] || o.before(&l) || o.overtaken(l.Field) {
				continue
			}
			var err error
			if made.leaf, made.ciphertext, err = o.sealAnew(offline, &l, version); err != nil {
				continue
			}
			if o.ahead.sealed == nil {
				o.ahead.sealed = map[policies.Hash]sealedItem{}
			}
			o.ahead.sealed[hash] = made
		}
		if size += len(made.ciphertext); size > maxPublication || !more() {
			return
		}
	}
}
