package xds

import "time"

// Restore makes an Update of resources that an earlier process received and kept: of each, Key, Version and
// Body count. They are checked as those of a response are, because the version that accepted them may
// have been another one; what is not valid is in Rejected and not in the Snapshot. The Update is Stale, and
// everything in it is Changed.
func Restore(kept []*Resource, at time.Time) Update {
	byType := map[string][]*job{}
	for i, r := range kept {
		byType[r.Type] = append(byType[r.Type], &job{
			index: i, key: r.Key, received: received{name: r.Name, version: r.Version, body: r.Body},
		})
	}
	u := Update{Received: at, Stale: true}
	var put []*Resource
	for url, jobs := range byType {
		decodeAll(lookupType(url), jobs)
		for _, j := range jobs {
			if j.err != nil {
				u.Rejected = append(u.Rejected, Rejection{Key: j.key, Err: j.err, Received: at})
				continue
			}
			j.decoded.Received = at
			put = append(put, j.decoded.Resource)
			u.Changed = append(u.Changed, j.decoded.Key)
			u.holds = append(u.holds, j.decoded.message)
		}
	}
	u.Changed = sortedKeys(u.Changed)
	u.Snapshot = u.Snapshot.With(put, nil)
	return u
}
