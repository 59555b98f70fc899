package policies

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// validUse is a use that the valid grant permits at testTime.
func validUse() (*Grant, Use) {
	leaf := validLeaf("phone.mobile")
	return validGrant(), Use{
		Reader: testReader, Purpose: "delivery", Leaf: &leaf, Item: &ReadItem{Owner: testOwner, Field: "phone.mobile"}, UsedToday: 9,
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(g *Grant, u *Use)
		after time.Duration // after testTime, when the grant begins
		want  error
	}{
		{"permitted", func(*Grant, *Use) {}, 0, nil},
		{"permitted, author named", func(_ *Grant, u *Use) { u.Item.Author = AuthorID(testOwner) }, 0, nil},
		{"permitted, another field of the grant", func(_ *Grant, u *Use) {
			leaf := validLeaf("adr/home")
			leaf.Epoch = 1
			u.Leaf, u.Item.Field = &leaf, "adr/home"
		}, 0, nil},
		{"permitted, any version", func(_ *Grant, u *Use) { u.Leaf.Version = 99 }, 0, nil},
		{"permitted, no limit", func(g *Grant, u *Use) { g.Limits.ReadsPerDay, u.UsedToday = 0, 1<<63 }, 0, nil},
		{"permitted, last nanosecond", func(*Grant, *Use) {}, time.Hour - 1, nil},

		{"another reader", func(_ *Grant, u *Use) { u.Reader = ReaderID{9} }, 0, CodeNoGrant},
		{"another owner", func(_ *Grant, u *Use) { u.Item.Owner = OwnerID{9} }, 0, CodeNoGrant},
		{"another owner, whole", func(_ *Grant, u *Use) {
			u.Item.Owner, u.Leaf.Owner, u.Leaf.Author = OwnerID{9}, OwnerID{9}, AuthorID{9}
		}, 0, CodeNoGrant},
		{"another field", func(_ *Grant, u *Use) { u.Item.Field = "email" }, 0, CodeNoGrant},
		{"another author", func(_ *Grant, u *Use) { u.Item.Author = AuthorID{9} }, 0, CodeNoGrant},
		{"no item", func(_ *Grant, u *Use) { u.Item = nil }, 0, CodeNoGrant},
		{"revoked", func(_ *Grant, u *Use) { u.Revoked = true }, 0, CodeRevoked},
		{"a nanosecond early", func(*Grant, *Use) {}, -1, CodeNotYet},
		{"the skew early", func(*Grant, *Use) {}, -ClockSkew, CodeNotYet},
		{"expired now", func(*Grant, *Use) {}, time.Hour, CodeGrantExpired},
		{"expired long ago", func(*Grant, *Use) {}, 24 * time.Hour, CodeGrantExpired},
		{"another purpose", func(_ *Grant, u *Use) { u.Purpose = "marketing" }, 0, CodePurpose},
		{"purpose in another case", func(_ *Grant, u *Use) { u.Purpose = "Delivery" }, 0, CodePurpose},
		{"no purpose", func(_ *Grant, u *Use) { u.Purpose = "" }, 0, CodePurpose},
		{"no leaf", func(_ *Grant, u *Use) { u.Leaf = nil }, 0, CodeLeaf},
		{"leaf of another owner", func(_ *Grant, u *Use) { u.Leaf.Owner = OwnerID{9} }, 0, CodeLeaf},
		{"leaf of another field", func(_ *Grant, u *Use) { u.Leaf.Field = "adr/home" }, 0, CodeLeaf},
		{"leaf of another author", func(_ *Grant, u *Use) { u.Leaf.Author = AuthorID{9} }, 0, CodeLeaf},
		{"leaf of the epoch before", func(_ *Grant, u *Use) { u.Leaf.Epoch-- }, 0, CodeLeaf},
		{"leaf of the epoch after", func(_ *Grant, u *Use) { u.Leaf.Epoch++ }, 0, CodeLeaf},
		{"leaf of the grant's other field's epoch", func(_ *Grant, u *Use) { u.Item.Field, u.Leaf.Field = "adr/home", "adr/home" }, 0, CodeLeaf},
		{"limit reached", func(_ *Grant, u *Use) { u.UsedToday = 10 }, 0, CodeLimit},
		{"over the limit", func(_ *Grant, u *Use) { u.UsedToday = 1 << 63 }, 0, CodeLimit},
	} {
		g, u := validUse()
		c.spoil(g, &u)
		if err := Check(g, u, testTime.Add(c.after)); err != c.want {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	_, u := validUse()
	if err := Check(nil, u, testTime); err != CodeNoGrant {
		t.Errorf("no grant: got %v, want %v", err, CodeNoGrant)
	}
}

// faults are independent reasons against a use, in the order in which Check gives them.
var faults = []struct {
	code  Code
	apply func(g *Grant, u *Use, now *time.Time)
}{
	{CodeNoGrant, func(_ *Grant, u *Use, _ *time.Time) { u.Reader = ReaderID{9} }},
	{CodeRevoked, func(_ *Grant, u *Use, _ *time.Time) { u.Revoked = true }},
	{CodeNotYet, func(g *Grant, _ *Use, now *time.Time) { *now = now.Add(-time.Hour) }},
	{CodeGrantExpired, func(g *Grant, _ *Use, now *time.Time) { g.Expires = now.Unix() }},
	{CodePurpose, func(_ *Grant, u *Use, _ *time.Time) { u.Purpose = "marketing" }},
	{CodeLeaf, func(_ *Grant, u *Use, _ *time.Time) { u.Leaf.Epoch++ }},
	{CodeLimit, func(_ *Grant, u *Use, _ *time.Time) { u.UsedToday = 10 }},
}

// Of any set of reasons the first in the order is given: all 128 sets.
func TestCheckOrder(t *testing.T) {
	for set := range 1 << len(faults) {
		g, u := validUse()
		now := testTime
		var want error
		for i := len(faults) - 1; i >= 0; i-- {
			if set&(1<<i) != 0 {
				faults[i].apply(g, &u, &now)
				want = faults[i].code
			}
		}
		if err := Check(g, u, now); err != want {
			t.Errorf("set %07b: got %v, want %v", set, err, want)
		}
	}
}

// Check changes nothing it is given and gives the same answer whenever and however often it is asked, with a time of any zone.
func TestCheckIsPure(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	zone := time.FixedZone("", 5*3600+1800)
	for range 2000 {
		g, u := validUse()
		now := testTime
		for _, f := range faults {
			if random.IntN(4) == 0 {
				f.apply(g, &u, &now)
			}
		}
		now = now.Add(time.Duration(random.Int64N(int64(2 * time.Hour))))
		grant, leaf, item := copyGrant(g), *u.Leaf, *u.Item
		first := Check(g, u, now)
		for range 3 {
			if again := Check(g, u, now.In(zone)); again != first {
				t.Fatalf("said %v, then %v", first, again)
			}
		}
		if again := Check(grant, Use{u.Reader, u.Purpose, &leaf, &item, u.UsedToday, u.Revoked}, now); again != first {
			t.Fatalf("said %v, of equal arguments %v", first, again)
		}
		if !reflect.DeepEqual(g, grant) || *u.Leaf != leaf || *u.Item != item {
			t.Fatal("Check changed its arguments")
		}
	}
}

func copyGrant(g *Grant) *Grant {
	out := *g
	out.Fields = append([]GrantedField(nil), g.Fields...)
	return &out
}

func TestCheckAnswersWithCodes(t *testing.T) {
	g, u := validUse()
	u.Revoked = true
	if err := Check(g, u, testTime); !errors.Is(err, CodeRevoked) {
		t.Errorf("got %v, want the sentinel", err)
	}
}
