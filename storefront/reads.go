package storefront

import (
	"errors"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// readBytes is how much ciphertext one answer holds. A reader who wants more asks several times.
const readBytes = 32 * mib

// offer is what the storefront found for one item of a read.
type offer struct {
	slot
	shelf *shelf
	tree  *tree // whose leaf it is; nil: none found
	leaf  *leaf
	proof policies.Proof
	grant *grant // nil: none found
}

// postRead serves a read, the hot path. The request's signature is the vault's to verify: here the session is looked up, which keeps
// junk away, and for each item leaf, proof and grant are found, from memory if the owner was read lately.
func (s *Storefront) postRead(c *call) error {
	in, env, req, one, err := s.parseRead(c)
	if err != nil {
		if limited := s.chargeNetwork(c); limited != nil {
			return limited
		}
		return err
	}
	now := s.now()
	if !s.callers.allow("r"+string(one.reader[:]), now, s.limits.FieldRate, s.limits.FieldBurst, len(req.Items)) {
		return rateLimited()
	}
	if err := req.Live(now); err != nil {
		return err
	}
	offers := make([]offer, len(req.Items))
	call := vaultapi.Call{Request: env.Raw, Items: make([]vaultapi.CallItem, len(req.Items))}
	for i := range req.Items {
		if err := s.find(c, one.reader, req, i, &offers[i]); err != nil {
			return err
		}
		offers[i].describe(&call.Items[i])
	}
	// Before the vault is asked, which records what it releases.
	size := int64(0)
	for i := range offers {
		if o := &offers[i]; o.leaf != nil && o.leaf.Version > req.Items[i].Known {
			size += int64(o.leaf.ciphertext)
		}
	}
	if size > readBytes {
		return problem.New(policies.CodeTooLarge, "the values have more than %d bytes together; ask for fewer at once", readBytes)
	}
	if err := s.share(c, "r"+string(one.reader[:])).Take(size); err != nil {
		return crowded()
	}
	reply, err := s.vault.Reencrypt(c.ctx, call)
	if err != nil {
		return err
	}
	if reply.Code != "" {
		p := problem.New(reply.Code, "")
		if reply.Code == policies.CodeRateLimited { // the vault's allowance of refusals fills slowly
			p.Detail, p.RetryAfter = "the reader asked too often for what it was not granted; ask only for what it was", 60
		}
		return p
	}
	if len(reply.Outcomes) != len(offers) {
		return problem.New(policies.CodeUnavailable, "the vault's answer does not fit the request")
	}
	out, err := s.result(c, in.Have, offers, &reply)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, out)
}

// parseRead reads a read and finds its session. What it refuses may come from anybody.
func (s *Storefront) parseRead(c *call) (in api.Read, env *envelope.Envelope, req *policies.ReadRequest, one openSession, err error) {
	if err = envelope.Decode(c.body, &in); err != nil {
		return
	}
	if env, err = envelope.Parse(in.Request); err != nil {
		return
	}
	if req, err = policies.Decode[policies.ReadRequest](env); err != nil {
		return
	}
	one, err = s.sessions.find(req.Session, s.now())
	return
}

// entryBytes is what an entry takes in an answer to a request for evidence, generously.
const entryBytes = 8 * kib

// postEvidence carries a reader's request for evidence to the vault, and the sealed answer back. Who may have which entries is the vault's to decide; here junk is
// kept away, and an entry counts like a field that is read.
func (s *Storefront) postEvidence(c *call) error {
	req, one, err := s.parseEvidence(c)
	if err != nil {
		if limited := s.chargeNetwork(c); limited != nil {
			return limited
		}
		return err
	}
	now := s.now()
	if !s.callers.allow("r"+string(one.reader[:]), now, s.limits.FieldRate, s.limits.FieldBurst, req.Most()) {
		return rateLimited()
	}
	if err := req.Live(now); err != nil {
		return err
	}
	if err := s.share(c, "r"+string(one.reader[:])).Take(int64(req.Most()) * entryBytes); err != nil {
		return crowded()
	}
	answer, err := s.vault.Evidence(c.ctx, c.body)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, answer)
}

// parseEvidence reads a request for evidence and finds its session. What it refuses may come from anybody.
func (s *Storefront) parseEvidence(c *call) (*policies.EvidenceRequest, openSession, error) {
	env, err := envelope.Parse(c.body)
	if err != nil {
		return nil, openSession{}, err
	}
	req, err := policies.Decode[policies.EvidenceRequest](env)
	if err != nil {
		return nil, openSession{}, err
	}
	one, err := s.sessions.find(req.Session, s.now())
	return req, one, err
}

// find looks up what an item needs. A pending manifest is completed first: the request's nonce is good for one call to the vault, so
// that call must be made under the newest head. What is not found is offered as nothing: the vault decides, and records.
func (s *Storefront) find(c *call, reader policies.ReaderID, req *policies.ReadRequest, i int, o *offer) error {
	item := &req.Items[i]
	o.slot = slot{item.Owner, item.Writer()}
	sh, err := s.settled(c.ctx, o.slot)
	if err != nil {
		return err
	}
	o.shelf = sh
	epoch := uint64(0)
	if sh.current != nil {
		if l, proof, ok := sh.current.find(item.Field); ok {
			o.tree, o.leaf, o.proof, epoch = sh.current, l, proof, l.Epoch
		}
	}
	set, err := s.granted(c.ctx, pair{reader, item.Owner})
	if err != nil {
		return err
	}
	o.grant = set.pick(item.Field, o.author, epoch, req.Purpose, s.now())
	return nil
}

func (o *offer) describe(it *vaultapi.CallItem) {
	if o.grant != nil {
		it.Grant = o.grant.ID
	}
	if o.shelf.current != nil {
		it.Head = o.shelf.current.hash
	}
	if o.leaf != nil {
		it.Leaf, it.Point, it.Proof = o.leaf.bytes, o.leaf.point(), o.proof
	}
}

// result adds the storefront's part to what was released.
func (s *Storefront) result(c *call, have []policies.Hash, offers []offer, reply *vaultapi.Reply) (*api.ReadResult, error) {
	out := &api.ReadResult{Answer: reply.Sealed, Items: make([]api.ReadItem, len(offers))}
	sent := make(map[policies.Hash]bool, len(have)+2*len(offers))
	for _, h := range have {
		sent[h] = true
	}
	attach := func(h policies.Hash, raw jsontext.Value) {
		if !sent[h] {
			sent[h] = true
			out.Documents = append(out.Documents, raw)
		}
	}
	checked := make(map[slot]policies.Code)
	for i := range offers {
		o, it := &offers[i], &out.Items[i]
		it.Outcome = reply.Outcomes[i]
		switch {
		case it.Outcome == policies.CodeHeadMoved:
			code, ok := checked[o.slot]
			if !ok {
				code = s.moved(c, o)
				checked[o.slot] = code
			}
			it.Outcome = code
		case it.Outcome == policies.CodeReleased && o.leaf != nil && o.grant != nil:
			body, err := s.ciphertext(c.ctx, o.slot, o.leaf.CiphertextHash)
			if errors.Is(err, store.ErrNotFound) {
				// The item was replaced and collected while this read was on its way, or is lost.
				it.Outcome = s.moved(c, o)
				continue
			} else if err != nil {
				return nil, err
			}
			it.Leaf, it.Proof, it.Ciphertext = o.leaf.bytes, o.proof, body
			it.Manifest, it.Grant = o.tree.hash, o.grant.hash
			attach(o.tree.hash, o.tree.raw)
			attach(o.grant.hash, o.grant.raw)
		case (it.Outcome == policies.CodeUnchanged || it.Outcome == policies.CodeNotFound) && o.grant != nil && o.grant.shared(): // it may name authors that the reader does not know of
			it.Grant = o.grant.hash
			attach(o.grant.hash, o.grant.raw)
		}
	}
	return out, nil
}

// moved finds out why an item's head is not the vault's: the owner published meanwhile, so the reader asks again and gets the newest, or
// this storefront does not have what the vault knows of, and only the owner can help.
func (s *Storefront) moved(c *call, o *offer) policies.Code {
	sh, err := s.settled(c.ctx, o.slot)
	if err != nil || sh.current != o.shelf.current || sh.pending != nil {
		return policies.CodeHeadMoved
	}
	if behind, _ := s.behind(c.ctx, o.slot, sh); behind {
		return policies.CodeBehind
	}
	return policies.CodeHeadMoved
}
