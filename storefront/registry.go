package storefront

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/registry"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
)

// The identity registry: who may look up whom (package registry). It holds no secret, and what it answers whoever asks verifies; what it adds is that a stranger who has got hold of
// an id learns nothing by it, while the storefront is honest. That an id exists is told by other routes too: a login's challenge, a message that is taken.

// introducedRecord is what one party has shown to be introduced to another. The version in the store grows by one with each writing.
type introducedRecord struct {
	Shown []shownIntroduction `json:"shown"` // not over yet, oldest first
}

// shownIntroduction is an introduction that was used.
type shownIntroduction struct {
	Hash    policies.Hash `json:"hash"`
	Expires int64         `json:"expires"` // Unix seconds
}

// introductionsOfPair is how many introductions that are not over are kept of one party to another.
const introductionsOfPair = 8

// registration is what an identity said of itself, nil if nothing.
func (s *Storefront) registration(ctx context.Context, id policies.IdentityID) (d *registry.Registration, raw jsontext.Value, version uint64, err error) {
	r, err := s.store.Get(ctx, key(kindRegistration, id[:]))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, 0, nil
	} else if err != nil {
		return nil, nil, 0, err
	}
	if _, d, err = stored[registry.Registration]("registration", r.Value); err != nil {
		return nil, nil, 0, err
	}
	return d, r.Value, r.Version, nil
}

// openly refuses an identity that may be looked up by introduction only.
func (s *Storefront) openly(ctx context.Context, id policies.IdentityID) error {
	d, _, _, err := s.registration(ctx, id)
	if err == nil && d != nil && d.Lookup != registry.Anyone {
		err = policies.CodeNotIntroduced
	}
	return err
}

// postRegistration keeps what an identity says of itself. The newest version counts.
func (s *Storefront) postRegistration(c *call) error {
	env, err := envelope.Parse(c.body)
	if err != nil {
		return err
	}
	claim, err := policies.Decode[registry.Registration](env)
	if err != nil {
		return err
	}
	if claim.Identity != c.subject {
		return problem.New(policies.CodeUnauthorized, "the registration is of another identity than the one who logged in")
	}
	if err := s.signedBy(c.ctx, env, c.subject); err != nil {
		return err
	}
	unlock, err := s.locks.lock(c.ctx, registrySlot(c.subject))
	if err != nil {
		return err
	}
	defer unlock()
	old, raw, version, err := s.registration(c.ctx, c.subject)
	if err != nil {
		return err
	}
	if old != nil && string(raw) == string(env.Raw) {
		return c.created()
	}
	if old != nil && claim.Version <= old.Version {
		return problem.New(policies.CodeOutdated, "version %d is registered", old.Version)
	}
	if err := s.chargeDocument(c.subject, env); err != nil {
		return err
	}
	if err := s.store.Commit(c.ctx, store.Change{Key: key(kindRegistration, c.subject[:]), Version: version + 1, Value: env.Raw}); err != nil {
		return err
	}
	return c.created()
}

// registrySlot is the lock of what an identity registered and of the introductions that it has shown.
func registrySlot(id policies.IdentityID) slot { return slot{author: policies.AuthorID(id)} }

// signedBy verifies a document under the key of an identity that is in force.
func (s *Storefront) signedBy(ctx context.Context, env *envelope.Envelope, id policies.IdentityID) error {
	line, _, err := s.line(ctx, id)
	if err != nil {
		return err
	}
	key, err := envelope.ParsePublicKey(line.Newest().SigningKey)
	if err != nil {
		return err
	}
	return env.Verify(key)
}

// postLookup answers who may look an identity up.
func (s *Storefront) postLookup(c *call) error {
	var in api.Lookup
	if err := envelope.Decode(c.body, &in); err != nil {
		return err
	}
	if in.Identity.IsZero() {
		return problem.New(policies.CodeMalformed, "an identity is needed")
	}
	d, raw, _, err := s.registration(c.ctx, in.Identity)
	if err != nil {
		return err
	}
	limited := d != nil && d.Lookup != registry.Anyone
	if in.Identity != c.subject && (limited || in.Introduction != nil) { // one that is not needed counts when the rule changes
		if err := s.admitLookup(c, &in); err != nil && limited {
			return err
		}
	}
	first, err := s.identityEnvelope(c.ctx, in.Identity)
	if err != nil {
		return err
	}
	_, list, err := s.line(c.ctx, in.Identity)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, api.Found{Identity: first.Raw, Successions: list, Registration: raw})
}

// admitLookup decides whether the caller may look up who is looked up by introduction only.
func (s *Storefront) admitLookup(c *call, in *api.Lookup) error {
	if in.Introduction != nil {
		return s.introduce(c, in)
	}
	known, err := s.knows(c.ctx, in.Identity, c.subject)
	if err != nil || known {
		return err
	}
	if !in.Owner.IsZero() {
		if named, err := s.namesAuthor(c.ctx, in.Owner, c.subject, in.Identity); err != nil || named {
			return err
		}
	}
	var record introducedRecord
	if _, err := s.load(c.ctx, key(kindIntroduced, c.subject[:], in.Identity[:]), &record); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	for _, shown := range record.Shown {
		if shown.Expires > s.now().Unix() {
			return nil
		}
	}
	return policies.CodeNotIntroduced
}

// introduce uses an introduction.
func (s *Storefront) introduce(c *call, in *api.Lookup) error {
	env, err := envelope.Parse(in.Introduction)
	if err != nil {
		return err
	}
	d, err := policies.Decode[registry.Introduction](env)
	if err != nil {
		return err
	}
	customer, err := s.customer(c.ctx, in.Identity, d.From)
	if err != nil {
		return err
	}
	if err := d.Check(in.Identity, c.subject, customer, s.now()); err != nil {
		return err
	}
	if err := s.signedBy(c.ctx, env, d.From); errors.Is(err, policies.CodeNotFound) {
		return policies.CodeIntroducer
	} else if err != nil {
		return err
	}
	unlock, err := s.locks.lock(c.ctx, registrySlot(c.subject))
	if err != nil {
		return err
	}
	defer unlock()
	at := key(kindIntroduced, c.subject[:], in.Identity[:])
	var record introducedRecord
	version, err := s.load(c.ctx, at, &record)
	fresh := errors.Is(err, store.ErrNotFound)
	if err != nil && !fresh {
		return err
	}
	record.Shown = slices.DeleteFunc(record.Shown, func(shown shownIntroduction) bool { return shown.Expires <= s.now().Unix() })
	hash := policies.Hash(env.Hash)
	if slices.ContainsFunc(record.Shown, func(shown shownIntroduction) bool { return shown.Hash == hash }) {
		return policies.CodeIntroductionUsed
	}
	if len(record.Shown) >= introductionsOfPair {
		return problem.New(policies.CodeTooLarge, "%d introductions of the two are in force already", introductionsOfPair)
	}
	record.Shown = append(record.Shown, shownIntroduction{hash, d.Expires})
	change, err := encodeRecord(at, version+1, record)
	if err != nil {
		return err
	}
	changes := []store.Change{change}
	if fresh {
		n, counted, err := s.number(c.ctx, key(kindIntroducedCount, c.subject[:]))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if n >= uint64(s.limits.Relationships) {
			return problem.New(policies.CodeTooLarge, "one party is introduced to at most %d others here", s.limits.Relationships)
		}
		changes = append(changes, store.Change{Key: key(kindIntroducedCount, c.subject[:]), Version: counted + 1, Value: policies.U64(n + 1)},
			store.Change{Key: key(kindIntroducedTo, in.Identity[:], c.subject[:]), Version: 1, Value: []byte{}})
	}
	return s.store.Commit(c.ctx, changes...)
}

// any reports whether there is a record with a prefix.
func (s *Storefront) any(ctx context.Context, prefix []byte) (bool, error) {
	some, err := s.store.Scan(ctx, prefix, nil, 1)
	return len(some) > 0, err
}

// customer reports whether a party signed a relationship with somebody, as the reader of that owner.
func (s *Storefront) customer(ctx context.Context, party, of policies.IdentityID) (bool, error) {
	return s.any(ctx, key(kindByReader, party[:], of[:]))
}

// knows reports whether a party signed something for another: a relationship with it, or a grant or write grant to it. What others sign about a party counts for nothing.
func (s *Storefront) knows(ctx context.Context, party, other policies.IdentityID) (bool, error) {
	for _, prefix := range [][]byte{key(kindByReader, party[:], other[:]), key(kindGrant, other[:], party[:]), key(kindWriteGrant, other[:], party[:])} {
		if found, err := s.any(ctx, prefix); err != nil || found {
			return found, err
		}
	}
	return false, nil
}

// namesAuthor reports whether an owner's grant to a reader names somebody as an author.
func (s *Storefront) namesAuthor(ctx context.Context, owner policies.OwnerID, reader, author policies.IdentityID) (found bool, err error) {
	err = s.each(ctx, key(kindGrant, reader[:], owner[:]), nil, func(r store.Record) error {
		var record grantRecord
		if err := decodeRecord(r, &record); err != nil {
			return err
		}
		_, g, err := stored[policies.Grant]("grant", record.Grant)
		if err != nil {
			return err
		}
		found = found || slices.ContainsFunc(g.Fields, func(f policies.GrantedField) bool { return policies.IdentityID(f.Author) == author })
		return nil
	})
	return found, err
}

// wipeIntroduced deletes what the registry keeps of an identity, on either side.
func (s *Storefront) wipeIntroduced(ctx context.Context, id policies.IdentityID) error {
	err := s.deleteEach(ctx, key(kindIntroduced, id[:]), func(r store.Record) []store.Change {
		return []store.Change{{Key: r.Key, Delete: true}, {Key: key(kindIntroducedTo, r.Key[33:], id[:]), Delete: true}}
	})
	if err != nil {
		return err
	}
	return s.deleteEach(ctx, key(kindIntroducedTo, id[:]), func(r store.Record) []store.Change {
		return []store.Change{{Key: r.Key, Delete: true}, {Key: key(kindIntroduced, r.Key[33:], id[:]), Delete: true}}
	})
}
