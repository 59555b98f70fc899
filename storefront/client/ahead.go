package client

import (
	"context"
	"slices"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// While a document is on its way to the vault, the device makes what the ones behind it will need: it has nothing else to do, and the person waits for both.
// Nothing of that is sent before its turn, and what it was made of tells then whether it still fits.

// ahead is what was made before its turn in this run.
type ahead struct {
	rotated map[policies.Hash]policies.Leaf // by the hash of the leaf that it was made of
	sealed  map[policies.Hash]sealedItem
	grant   policies.Hash // to follow the grant that is on its way: its task has it, as if its outcome were unknown
	keys    []vaultapi.SealedKey
}

type sealedItem struct {
	leaf       policies.Leaf
	ciphertext []byte
}

// send returns the keys of a grant that was made ahead and that is sent now, for the first time; of any other task none.
func (a *ahead) send(t *task) []vaultapi.SealedKey {
	if t.Envelope == nil || !slices.Contains(t.Attempts, a.grant) {
		return nil
	}
	keys := a.keys
	a.grant, a.keys = policies.Hash{}, nil
	return keys
}

// takeBack makes a grant that was made ahead, and not sent, one that was not made.
func (o *Owner) takeBack() {
	for i := range o.state.Tasks {
		if t := &o.state.Tasks[i]; o.ahead.send(t) != nil {
			t.Envelope, t.Attempts = nil, t.Attempts[:len(t.Attempts)-1]
			o.saveSoon()
		}
	}
}

// meanwhile sends a document, and looks ahead until the answer is there.
func (o *Owner) meanwhile(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope, send func() error) error {
	answer := make(chan error, 1)
	go func() { answer <- send() }()
	// Sending reads the state too, and writes nothing of what is looked at here.
	for range o.lookAhead(ctx, v, e) {
		select {
		case err := <-answer:
			return err
		default:
		}
	}
	return <-answer
}

// lookAhead makes one thing after another for the tasks behind the first one, whose document is e, until it is told to stop.
func (o *Owner) lookAhead(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope) func(more func() bool) {
	return func(more func() bool) {
		if e.Type == "grant" && len(o.state.Tasks) > 1 {
			if o.grantAhead(ctx, v, e); !more() {
				return
			}
		}
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
}

// grantAhead makes and stores the second of two grants that a publication needs, on top of the first one, which is on its way. It is sent once the first one is
// accepted, and taken back if not. Killed before it was sent, it is asked after without its keys, like one that was sent, and made anew.
func (o *Owner) grantAhead(ctx context.Context, v *policies.VaultDocument, first *envelope.Envelope) {
	sent, t := &o.state.Tasks[0], &o.state.Tasks[1]
	if !sent.NextEpoch || !t.NextEpoch || sent.Stroke != t.Stroke || sent.Cancelled || t.Cancelled || t.Envelope != nil || !o.toCarry(t) {
		return
	}
	link, err := linkOf(first)
	if err != nil {
		return
	}
	if c, ok := o.contact(t.Reader); !ok || o.replacedKeys(ctx, c) {
		return
	}
	e, keys, err := o.buildGrant(t, v, policies.Link{Seq: link.Seq + 1, Prev: policies.Hash(first.Hash)})
	if err != nil { // its turn will tell
		return
	}
	t.Envelope, t.Attempts = e.Raw, append(t.Attempts, policies.Hash(e.Hash))
	o.ahead.grant, o.ahead.keys = policies.Hash(e.Hash), keys
	if o.save() != nil {
		o.takeBack()
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
			if made.leaf, made.ciphertext, err = o.sealItemAnew(offline, &l, version); err != nil {
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
