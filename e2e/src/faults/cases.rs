//! The list itself: a table of data.

use super::{Case, Proof, Words};

/// Every fault, in the order of the page.
pub const CASES: &[Case] = &[
    Case {
        fault: Words {
            english: "API server stopped (SIGSTOP) for 10 s",
            japanese: "API サーバーを 10 秒停止(SIGSTOP)",
        },
        holds: Words {
            english: "After 8 s no answer is 200; each comes in time and says why; the schedule fires once when it is back",
            japanese: "8 秒後からは 200 を返さず、期限内に理由を添えて応答。復旧後にスケジュールは一回だけ実行",
        },
        proof: Proof::Real("api_server_stands_still_for_10_s"),
    },
    Case {
        fault: Words {
            english: "API server stopped (SIGSTOP) for 5 min",
            japanese: "API サーバーを 5 分停止(SIGSTOP)",
        },
        holds: Words {
            english: "The same",
            japanese: "同上",
        },
        proof: Proof::Long("api_server_stands_still_for_5_min"),
    },
    Case {
        fault: Words {
            english: "API server killed, started 10 s later",
            japanese: "API サーバーを強制終了し、10 秒後に再起動",
        },
        holds: Words {
            english: "The same",
            japanese: "同上",
        },
        proof: Proof::Real("api_server_dies_and_comes_back"),
    },
    Case {
        fault: Words {
            english: "etcd stopped (SIGSTOP) for 10 s",
            japanese: "etcd を 10 秒停止(SIGSTOP)",
        },
        holds: Words {
            english: "No order is answered as done; reads are true or refused",
            japanese: "命令に成功と答えない。読み取りは正しい値か拒否",
        },
        proof: Proof::Real("etcd_stands_still_for_10_s"),
    },
    Case {
        fault: Words {
            english: "etcd compacted and API server restarted while both replicas stand still",
            japanese: "両レプリカの停止中に etcd を compact し、API サーバーを再起動",
        },
        holds: Words {
            english: "The change and the deletion in between are known to both, without a restart",
            japanese: "その間の変更と削除を、再起動なしで両方が把握",
        },
        proof: Proof::Real("etcd_is_compacted_while_nobody_watches"),
    },
    Case {
        fault: Words {
            english: "Every connection to the API server cut, again and again",
            japanese: "API サーバーへの接続をすべて繰り返し切断",
        },
        holds: Words {
            english: "Every change is seen; a sleep remembers the last count",
            japanese: "すべての変更を把握し、スリープは最後の台数を記憶",
        },
        proof: Proof::Real("watches_are_cut"),
    },
    Case {
        fault: Words {
            english: "ClusterRoleBinding deleted for 20 s",
            japanese: "ClusterRoleBinding を 20 秒間削除",
        },
        holds: Words {
            english: "Orders are refused with the reason; all works again without a restart",
            japanese: "命令は理由つきで拒否。戻せば再起動なしで動く",
        },
        proof: Proof::Real("rights_are_taken_away_and_given_back"),
    },
    Case {
        fault: Words {
            english: "API Priority and Fairness leaves us no seat for 20 s (429)",
            japanese: "API Priority and Fairness により 20 秒間すべて 429",
        },
        holds: Words {
            english: "The same",
            japanese: "同上",
        },
        proof: Proof::Real("api_priority_and_fairness_starves_us"),
    },
    Case {
        fault: Words {
            english: "Token no longer accepted, replaced in its file later",
            japanese: "トークンが無効になり、後でファイルを更新",
        },
        holds: Words {
            english: "Not ready until the new one is there, then ready without a restart; the schedule fires once",
            japanese: "新しいトークンまで not ready、その後は再起動なしで ready。スケジュールは一回だけ実行",
        },
        proof: Proof::Real("token_expires"),
    },
    Case {
        fault: Words {
            english: "API server shows a certificate of an unknown authority for 20 s, then the authority is added to the file",
            japanese: "API サーバーの証明書が未知の認証局のものになり、20 秒後に認証局をファイルへ追加",
        },
        holds: Words {
            english: "Nothing is answered that is not known; ready without a restart",
            japanese: "分からないことには答えない。再起動なしで ready",
        },
        proof: Proof::Real("certificate_of_the_api_server_changes"),
    },
    Case {
        fault: Words {
            english: "Leader killed (SIGKILL) before and after every call of the API server by a sleep, a wake, a scheduled wake",
            japanese: "スリープ、起動、スケジュール起動が行う API 呼び出しごとに、その前後でリーダーを強制終了(SIGKILL)",
        },
        holds: Words {
            english: "The count is the one before or after; what was answered has happened; 2 is remembered; one write; the other replica goes on",
            japanese: "台数は前か後のどちらか。成功と答えたものは実行済み。2 を記憶し、書き込みは一回。もう一方が続ける",
        },
        proof: Proof::Long("leader_is_killed_at_every_call"),
    },
    Case {
        fault: Words {
            english: "Leader stopped (SIGSTOP) for 60 s with its write on the way, then both go on",
            japanese: "書き込みの送信中にリーダーを 60 秒停止(SIGSTOP)し、その後再開",
        },
        holds: Words {
            english: "Another leads and does the work; the old write changes nothing; the old leader knows that it leads no more",
            japanese: "別のレプリカが引き継いで実行。古い書き込みは何も変えず、旧リーダーは自分がリーダーでないと知る",
        },
        proof: Proof::Long("leader_stands_still_inside_a_decision"),
    },
    Case {
        fault: Words {
            english: "Both replicas killed between the answer and the time it promised, then started",
            japanese: "応答から予定時刻までの間に両レプリカを強制終了し、再起動",
        },
        holds: Words {
            english: "Exactly one write of the count",
            japanese: "台数の書き込みはちょうど一回",
        },
        proof: Proof::Real("both_replicas_die_before_it_is_due"),
    },
    Case {
        fault: Words {
            english: "The same, 20 runs, each killed at another moment",
            japanese: "同上を、時点をずらして 20 回",
        },
        holds: Words {
            english: "Exactly one write in each",
            japanese: "毎回ちょうど一回",
        },
        proof: Proof::Long("both_replicas_die_before_it_is_due_20_times"),
    },
    Case {
        fault: Words {
            english: "Every replica dead while a workload sleeps and a person scales it up and to 0",
            japanese: "スリープ中に全レプリカが停止し、その間に人が台数を増やして 0 に戻す",
        },
        holds: Words {
            english: "It sleeps on; it wakes to a count that was remembered, never to 0",
            japanese: "スリープは続き、記憶した台数で復帰。0 には決してならない",
        },
        proof: Proof::Real("all_replicas_are_dead_for_a_while"),
    },
    Case {
        fault: Words {
            english: "Leader dead, no other leads yet, and `kubectl scale` takes a sleeper to 6 and to 0 again",
            japanese: "リーダーが停止し次がまだいない間に、`kubectl scale` でスリープ中の対象を 6 にして 0 に戻す",
        },
        holds: Words {
            english: "6 is what a person wanted last, so it is remembered",
            japanese: "人が最後に望んだ 6 を記憶",
        },
        proof: Proof::Real("people_scale_while_nobody_leads"),
    },
    Case {
        fault: Words {
            english: "Leader's wall clock goes back one hour, and comes right again",
            japanese: "リーダーの時計が一時間戻り、その後正しくなる",
        },
        holds: Words {
            english: "The jump fires nothing, puts nothing to sleep and takes nobody's lead; then one write",
            japanese: "実行もスリープもリーダー交代も起こさない。その後、書き込みは一回",
        },
        proof: Proof::Real("clock_goes_back_one_hour"),
    },
    Case {
        fault: Words {
            english: "`kubectl scale` at random against sleeps, wakes and scale-ups, two at once, 60 rounds",
            japanese: "`kubectl scale` とスリープ・起動・台数変更を無作為に二つずつ同時に、60 回",
        },
        holds: Words {
            english: "In every version of the object: whatever sleeps remembers the last count above 0 that somebody wanted",
            japanese: "オブジェクトのどの版でも、スリープ中は最後に望まれた 0 より大きい台数を記憶",
        },
        proof: Proof::Real("people_scale_at_random"),
    },
    Case {
        fault: Words {
            english: "The same, 1,000 rounds",
            japanese: "同上を 1,000 回",
        },
        holds: Words {
            english: "The same",
            japanese: "同上",
        },
        proof: Proof::Long("people_scale_at_random_for_1000_rounds"),
    },
    Case {
        fault: Words {
            english: "Deployment deleted and made again (new uid) with a schedule pending",
            japanese: "スケジュール待ちの Deployment を削除して作り直す(uid が変わる)",
        },
        holds: Words {
            english: "The schedule was the old one's: the new one is not woken by it",
            japanese: "スケジュールは古いほうのもの。新しいほうは起動されない",
        },
        proof: Proof::Real("deployment_is_deleted_and_made_again"),
    },
    Case {
        fault: Words {
            english: "Deployment paused",
            japanese: "Deployment を一時停止",
        },
        holds: Words {
            english: "Sleeps and wakes; stays paused",
            japanese: "スリープも起動もでき、一時停止のまま",
        },
        proof: Proof::Real("deployment_is_paused"),
    },
    Case {
        fault: Words {
            english: "Deployment in the middle of a rollout whose pods find no node",
            japanese: "新しい Pod の置き場がなく、ロールアウトが途中",
        },
        holds: Words {
            english: "Remembers the wanted count, not the surge; wakes to the new template; what waits is told with its reason",
            japanese: "一時的な余分を含まない望まれた台数を記憶し、新しいテンプレートで復帰。待機は理由つきで返す",
        },
        proof: Proof::Real("deployment_is_in_the_middle_of_a_rollout"),
    },
    Case {
        fault: Words {
            english: "Deployment with `strategy: Recreate`",
            japanese: "`strategy: Recreate` の Deployment",
        },
        holds: Words {
            english: "Sleeps and wakes to its count",
            japanese: "スリープし、元の台数で復帰",
        },
        proof: Proof::Real("deployment_has_the_strategy_recreate"),
    },
    Case {
        fault: Words {
            english: "HorizontalPodAutoscaler with `minReplicas: 2` on it",
            japanese: "`minReplicas: 2` の HorizontalPodAutoscaler つき",
        },
        holds: Words {
            english: "Stays at 0, wakes to at least 2, the autoscaler untouched",
            japanese: "0 のまま、2 台以上で復帰、HPA は変更しない",
        },
        proof: Proof::Real("deployment_has_an_autoscaler"),
    },
    Case {
        fault: Words {
            english: "PodDisruptionBudget with `minAvailable: 2` on it",
            japanese: "`minAvailable: 2` の PodDisruptionBudget つき",
        },
        holds: Words {
            english: "Sleeps and wakes",
            japanese: "スリープも起動もできる",
        },
        proof: Proof::Real("deployment_has_a_disruption_budget"),
    },
    Case {
        fault: Words {
            english: "The original manifest applied again while it sleeps, with and without a count",
            japanese: "スリープ中に元のマニフェストを再適用(台数あり・なし)",
        },
        holds: Words {
            english: "With a count it is awake and the history says by whom; without one it sleeps on",
            japanese: "台数ありなら復帰し履歴に適用者が残る。台数なしならスリープのまま",
        },
        proof: Proof::Real("manifest_is_applied_again"),
    },
    Case {
        fault: Words {
            english: "Namespace being deleted, held by a finalizer, with a schedule pending",
            japanese: "スケジュール待ちのまま Namespace が削除中(finalizer で停滞)",
        },
        holds: Words {
            english: "404 to everything about it, nothing is written",
            japanese: "その対象への呼び出しはすべて 404、書き込みなし",
        },
        proof: Proof::Real("namespace_is_being_deleted"),
    },
    Case {
        fault: Words {
            english: "Node deleted under its pods",
            japanese: "Pod の載ったノードを削除",
        },
        holds: Words {
            english: "Never told as running; sleeps and wakes meanwhile; serves when a node is back",
            japanese: "稼働中とは決して言わない。その間もスリープと起動が可能で、ノードが戻れば稼働",
        },
        proof: Proof::Real("node_is_gone"),
    },
    Case {
        fault: Words {
            english: "409 to every write; 403, 422, 500 to a write",
            japanese: "すべての書き込みに 409。書き込みに 403、422、500",
        },
        holds: Words {
            english: "Decided anew at most five times, then 500 with the reason; nothing is changed",
            japanese: "判断し直すのは五回まで。その後は理由つきの 500 で、何も変えない",
        },
        proof: Proof::Double {
            file: "crates/cli/tests/cluster/scaling.rs",
            tests: &["refusals_say_whose_they_are"],
        },
    },
    Case {
        fault: Words {
            english: "Storms of 429 with and without `Retry-After`, and of 409",
            japanese: "429(`Retry-After` あり・なし)と 409 の嵐",
        },
        holds: Words {
            english: "What is asked to wait waits within its deadline, then says so; all works when the storm is over",
            japanese: "待てと言われれば期限内で待ち、超えればそう答える。嵐が去れば動く",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/faults.rs",
            tests: &[
                "a_storm_of_refusals_for_load_is_sat_out",
                "a_server_that_asks_to_wait_is_waited_for",
            ],
        },
    },
    Case {
        fault: Words {
            english: "A write is carried out and its answer lost",
            japanese: "書き込みは実行されたが応答が失われる",
        },
        holds: Words {
            english: "Told as a timeout; the next read tells what happened",
            japanese: "タイムアウトと答え、次の読み取りが実際を示す",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/faults.rs",
            tests: &["a_lost_answer_is_a_timeout_and_the_next_read_tells_what_happened"],
        },
    },
    Case {
        fault: Words {
            english: "API server takes connections and answers nothing",
            japanese: "API サーバーが接続だけ受けて応答しない",
        },
        holds: Words {
            english: "Not ready within 2 s; no read from a cache that nobody feeds for longer than 5 s",
            japanese: "2 秒以内に not ready。更新の途絶えたキャッシュは 5 秒を超えて使わない",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/faults.rs",
            tests: &["an_api_server_that_hangs_is_told_in_time"],
        },
    },
    Case {
        fault: Words {
            english: "Watches cut, too old (410), begun with an error",
            japanese: "watch の切断、期限切れ(410)、開始時のエラー",
        },
        holds: Words {
            english: "Every change and deletion is seen",
            japanese: "変更も削除もすべて把握",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/faults.rs",
            tests: &[
                "watches_that_are_cut_or_too_old_lose_nothing",
                "a_watch_that_begins_with_an_error_is_begun_again",
            ],
        },
    },
    Case {
        fault: Words {
            english: "One kind may not be read, another is not served",
            japanese: "一種類は権限なし、別の種類は提供なし",
        },
        holds: Words {
            english: "The others work",
            japanese: "ほかの種類は動く",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/faults.rs",
            tests: &["a_kind_that_may_not_be_read_takes_no_other_with_it"],
        },
    },
    Case {
        fault: Words {
            english: "A custom kind cannot be read: the webhook that converts it is gone",
            japanese: "カスタムの種類を読めない(変換する Webhook がもうない)",
        },
        holds: Words {
            english: "The others work; every list names the kind and why; `nagi release` says that it was not looked at",
            japanese: "ほかの種類は動く。どの一覧もその種類と理由を示し、`nagi release` も見られなかったと伝える",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/kinds.rs",
            tests: &["a_custom_kind_that_cannot_be_read_is_named_and_keeps_no_other_away"],
        },
    },
    Case {
        fault: Words {
            english: "A page of large objects is longer than an answer may be",
            japanese: "大きなオブジェクトの一ページが応答の上限を超える",
        },
        holds: Words {
            english: "They are read in smaller pages",
            japanese: "ページを小さくして読む",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/kinds.rs",
            tests: &["objects_of_any_size_are_read_in_pages_that_fit"],
        },
    },
    Case {
        fault: Words {
            english: "etcd restored from a backup: versions count on from an older one",
            japanese: "etcd をバックアップから復元し、バージョンが古いところから数え直される",
        },
        holds: Words {
            english: "Everything is read anew within 10 s, and what is written then is taken",
            japanese: "10 秒以内にすべて読み直し、その後の書き込みも通る",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/faults.rs",
            tests: &["an_api_server_that_goes_back_to_a_backup_is_read_anew"],
        },
    },
    Case {
        fault: Words {
            english: "The same with `etcdutl snapshot restore --bump-revision`: versions go on behind all that was told, objects keep theirs",
            japanese: "同じく `etcdutl snapshot restore --bump-revision` で復元し、バージョンはそれまでより先へ進むが、オブジェクトのものは元のまま",
        },
        holds: Words {
            english: "The objects of the backup are taken, and what is written then too",
            japanese: "バックアップのオブジェクトを受け入れ、その後の書き込みも通る",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/faults.rs",
            tests: &["a_backup_behind_a_version_that_was_raised_is_taken"],
        },
    },
    Case {
        fault: Words {
            english: "One of several namespaces is gone, may not be read, or its lists fail",
            japanese: "見ているネームスペースの 1 つが消えた、読む権限がない、一覧が失敗する",
        },
        holds: Words {
            english: "The others work: ready, listed, woken, forwarded to; lists say what is missing",
            japanese: "ほかは動き続ける（ready、一覧、起動、転送）。一覧は足りないものを示す",
        },
        proof: Proof::Double {
            file: "crates/cli/tests/cluster/partial.rs",
            tests: &[
                "a_namespace_that_may_not_be_read_stops_nobody",
                "a_namespace_that_cannot_be_listed_stops_nobody",
            ],
        },
    },
    Case {
        fault: Words {
            english: "A webhook answers every write with 409, or keeps what is taken away",
            japanese: "Webhook がすべての書き込みに 409 を返す、または消したものを残す",
        },
        holds: Words {
            english: "It is written again after a second and then less and less, and the log says so",
            japanese: "再試行は 1 秒後、その後は間隔を広げて行い、ログに残る",
        },
        proof: Proof::Double {
            file: "crates/control/src/tests.rs",
            tests: &[
                "conflicts_without_end_are_no_flood",
                "a_schedule_that_a_webhook_keeps_is_no_flood",
                "a_record_that_a_webhook_keeps_is_no_flood",
            ],
        },
    },
    Case {
        fault: Words {
            english: "Leader cannot renew its Lease; Lease lost",
            japanese: "リーダーが Lease を更新できない、または失う",
        },
        holds: Words {
            english: "It stops to decide before another begins",
            japanese: "ほかが始める前に判断をやめる",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/leading.rs",
            tests: &[
                "a_leader_that_cannot_renew_stops_to_decide_before_others_begin",
                "a_process_that_lost_the_lease_writes_nothing",
            ],
        },
    },
    Case {
        fault: Words {
            english: "Lease deleted and made again, counting from 0",
            japanese: "Lease が消され、0 から数え直し",
        },
        holds: Words {
            english: "The new leader raises its term above the one that it meets",
            japanese: "新しいリーダーは出会った任期より大きい任期にする",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/leading.rs",
            tests: &[
                "a_leader_writes_its_term_and_rises_above_one_that_it_meets",
                "a_holder_that_is_gone_is_followed_in_a_term_of_its_own",
            ],
        },
    },
    Case {
        fault: Words {
            english: "Object deleted and made again between read and write",
            japanese: "読み取りと書き込みの間にオブジェクトが作り直される",
        },
        holds: Words {
            english: "Nothing is written on the word of the old one",
            japanese: "古い判断で書き込まない",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/writes.rs",
            tests: &["a_workload_that_was_made_again_is_not_written_on_the_word_of_the_old_one"],
        },
    },
    Case {
        fault: Words {
            english: "Many gateways wake the same sleeper at once",
            japanese: "多数のゲートウェイが同じ対象を同時に起動",
        },
        holds: Words {
            english: "One write takes effect",
            japanese: "有効な書き込みは一つ",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/writes.rs",
            tests: &["many_gateways_wake_through_scale_and_one_takes_effect"],
        },
    },
    Case {
        fault: Words {
            english: "Writes of sleeps hang",
            japanese: "スリープの書き込みが滞留",
        },
        holds: Words {
            english: "A wake does not wait for them",
            japanese: "起動はそれを待たない",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/writes.rs",
            tests: &["a_wake_waits_for_no_sleep_however_many_hang"],
        },
    },
    Case {
        fault: Words {
            english: "Events cannot be written",
            japanese: "Event を書き込めない",
        },
        holds: Words {
            english: "No write waits for them",
            japanese: "書き込みはそれを待たない",
        },
        proof: Proof::Double {
            file: "crates/kube/tests/engine/others.rs",
            tests: &["an_event_that_cannot_be_written_delays_no_write"],
        },
    },
];
