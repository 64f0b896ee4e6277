BEGIN TRANSACTION;
CREATE TABLE commitment (
	id INTEGER NOT NULL, 
	transaction_uid TEXT NOT NULL, 
	requestor TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	"references" JSON NOT NULL, 
	failures JSON, 
	is_reported BOOLEAN DEFAULT 0 NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE header (
	instance_id INTEGER NOT NULL, 
	data BLOB NOT NULL, 
	PRIMARY KEY (instance_id), 
	FOREIGN KEY(instance_id) REFERENCES instance (id)
);
INSERT INTO "header" VALUES(1,X'4D8D3D0BC2400C865FA49443506E1271AA7F2024C715EB78D441416CE1EAEAC7A6839DFCFFF8EA2421908427EFE3B0C0F9B082499026AA98AA36528B4964F30A87258992048B5B855D72081AA29A06871BDA3C413B7878F4A729F2EBF97E5CD238DE3DD96357206ECC3CD69C4BECBBDC5F9387FE526C5B2B53ACC28C8EE2EBE0CFFCCFF701');
INSERT INTO "header" VALUES(2,X'E360106308F5946230D433D2B33031D033343030B0D033D533D4330162A0280307830450051B58852190A7C0E0E2C8C16064606462606860C4C190C0E01CCCC4E01C22C020C010E0C7C5E0959F975A1CE7949FA4200054EBE3CFC260626E6828C0A00864B33178F80707C43B2930F002CD6401990954C387643E00');
INSERT INTO "header" VALUES(3,X'4D8DB10AC24010440709E11094AB44ACE20F2CB3E789B9D2C442259840B455116C4DE1FF83AB95C5C2EEF2669EC30C97C3022A41CA485192A5AC4525DAD8170E7323722356A27615D86D1D0243A43238DC51F723D4670F8FEE34C671783DDFD76A7814DED8A6CD1037AA1E4BDB73ECDBBEBB551EFCB5684A64622A303147F6755866FAE7FB00');
INSERT INTO "header" VALUES(4,X'E360106308F5946230D433D2B33031D033343030B0D033D533D4330162A0280307830450051B50055004C853607071E4603032303231303430E2604860700E6662700E1160106008F0E361F0CB4FCA4FA98CF3CECB2FCF1300AAF6F16761303137345460E0059AC302320728CA87642600');
INSERT INTO "header" VALUES(5,X'3D8EB10AC24010440709728D729588D5151656CBEEE524B14B884D408C92A415035A0862A1E0F7FA25EA9AC2625976989D790613B4E50C429ED2C024CC9CD29284828EAA3098AA63A80E55F57258E7069E7D60616F7044510F50341616BBED18EDEDF23CDF1FDDF5909F3A67D5BFA9228444C4628E7A0F2C00BC3F7839DD193CDA069A8B9E21A6E032C49A19A1AC2BFDE7BE4F56096B9F388C9426FAD168B2B6FDC9BE');
INSERT INTO "header" VALUES(6,X'E360106308F5946230D433D2B33031D033343030B0D033D533D4330162A0280307830450051B5085999E2190A7C0E0E2C8C16064606462606860C4C190C0E01CCCC4E01C22C020C010E0C7C7E098979F57999B5F5A1CE79F97AA200054EFE3CF00247981A6B0804C01B2F9904C0400');
INSERT INTO "header" VALUES(7,X'4D8D3D0BC24010448720E11094AB44ACCE3FB0EC1E279E658882829A40B4F5034C6163E9EF77B4B258D81DDECE7398E0BC9BC1244A4E2AA6AA59166292384CE130255192588AF10A58570E516352D3E87043DD15A84F1E1EED7188C3FDF9E85F97CDBBF764F74D811C3CE6DC4A6C9BAEBD561EFAEBB055567658C08886C1D7C08FF19FED03');
INSERT INTO "header" VALUES(8,X'E360106308F5946230D433D2B33031D033343030B0D033D533D4330162A0280307830450051B5085859E2190A7C0E0E2C8C16064606462606860C4C190C0E01CCCC4E01C22C020C010E0C7C3E09B585494999A12E75A96AA200054EDE3CFC46001642902596C0C1EFEC101F18E020C0E605D6E0A0A0CBC40D35940A603D5F221D90400');
CREATE TABLE instance (
	id INTEGER NOT NULL, 
	parent_id INTEGER, 
	timezone TEXT DEFAULT '' NOT NULL, 
	instance_number TEXT DEFAULT '' NOT NULL, 
	sop_instance_uid TEXT DEFAULT '' NOT NULL, 
	sop_class_uid TEXT DEFAULT '' NOT NULL, 
	related_general_sop_class_uid TEXT DEFAULT '' NOT NULL, 
	content_date TEXT DEFAULT '' NOT NULL, 
	content_date_key TEXT DEFAULT '' NOT NULL, 
	content_time TEXT DEFAULT '' NOT NULL, 
	content_time_key TEXT DEFAULT '' NOT NULL, 
	alternate_representation_sequence BLOB, 
	available_transfer_syntax_uid TEXT DEFAULT '' NOT NULL, 
	number_of_frames TEXT DEFAULT '' NOT NULL, 
	container_identifier TEXT DEFAULT '' NOT NULL, 
	specimen_description_sequence BLOB, 
	concept_name_code_sequence BLOB, 
	content_template_sequence BLOB, 
	path TEXT DEFAULT '' NOT NULL, 
	size BIGINT NOT NULL, 
	digest TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(parent_id) REFERENCES series (id)
);
INSERT INTO "instance" VALUES(1,1,'','','1.1.1','1.2.840.10008.5.1.4.1.1.2','','','','','',NULL,'1.2.840.10008.1.2.1','','',NULL,NULL,NULL,'/files/1.1.1.dcm',160,'');
INSERT INTO "instance" VALUES(2,2,'','','1.2.1','1.2.840.10008.5.1.4.1.1.2','','','','','',NULL,'1.2.840.10008.1.2.1','','',NULL,NULL,NULL,'/files/1.2.1.dcm',144,'');
INSERT INTO "instance" VALUES(3,3,'','','1.3.1','1.2.840.10008.5.1.4.1.1.2','','','','','',NULL,'1.2.840.10008.1.2.1','','',NULL,NULL,NULL,'/files/1.3.1.dcm',160,'');
INSERT INTO "instance" VALUES(4,4,'','','1.4.1','1.2.840.10008.5.1.4.1.1.2','','','','','',NULL,'1.2.840.10008.1.2.1','','',NULL,NULL,NULL,'/files/1.4.1.dcm',132,'');
INSERT INTO "instance" VALUES(5,5,'','','1.5.1','1.2.840.10008.5.1.4.1.1.2','','','','','',NULL,'1.2.840.10008.1.2.1','','',NULL,NULL,NULL,'/files/1.5.1.dcm',202,'');
INSERT INTO "instance" VALUES(6,6,'','','1.6.1','1.2.840.10008.5.1.4.1.1.2','','','','','',NULL,'1.2.840.10008.1.2.1','','',NULL,NULL,NULL,'/files/1.6.1.dcm',130,'');
INSERT INTO "instance" VALUES(7,7,'','','1.7.1','1.2.840.10008.5.1.4.1.1.2','','','','','',NULL,'1.2.840.10008.1.2.1','','',NULL,NULL,NULL,'/files/1.7.1.dcm',158,'');
INSERT INTO "instance" VALUES(8,8,'','','1.8.1','1.2.840.10008.5.1.4.1.1.2','','','','','',NULL,'1.2.840.10008.1.2.1','','',NULL,NULL,NULL,'/files/1.8.1.dcm',154,'');
CREATE TABLE patient (
	id INTEGER NOT NULL, 
	identity TEXT DEFAULT '' NOT NULL, 
	patient_name TEXT DEFAULT '' NOT NULL, 
	patient_name_alphabetic TEXT DEFAULT '' NOT NULL, 
	patient_name_ideographic TEXT DEFAULT '' NOT NULL, 
	patient_name_phonetic TEXT DEFAULT '' NOT NULL, 
	patient_name_sound TEXT DEFAULT '' NOT NULL, 
	patient_id TEXT DEFAULT '' NOT NULL, 
	issuer_of_patient_id TEXT DEFAULT '' NOT NULL, 
	referenced_patient_sequence BLOB, 
	patient_birth_date TEXT DEFAULT '' NOT NULL, 
	patient_birth_date_key TEXT DEFAULT '' NOT NULL, 
	patient_birth_time TEXT DEFAULT '' NOT NULL, 
	patient_birth_time_key TEXT DEFAULT '' NOT NULL, 
	patient_sex TEXT DEFAULT '' NOT NULL, 
	other_patient_ids TEXT DEFAULT '' NOT NULL, 
	other_patient_names TEXT DEFAULT '' NOT NULL, 
	other_patient_ids_sequence BLOB, 
	ethnic_group TEXT DEFAULT '' NOT NULL, 
	patient_comments TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (identity)
);
INSERT INTO "patient" VALUES(1,'4711','Smith^Anna','smith^anna','','',' S530 A500 ','4711','HOSP_A',NULL,'19500101','19500101','','','','','',NULL,'','');
INSERT INTO "patient" VALUES(2,'\1.6','Anonymous^One','anonymous^one','','',' A555 O500 ','','',NULL,'','','','','','','',NULL,'','');
INSERT INTO "patient" VALUES(3,'8','Maiden^Eve','maiden^eve','','',' M350 E100 ','8','HOSP_A',NULL,'19800101','19800101','','','F','','',NULL,'','');
CREATE TABLE procedure_step (
	uid TEXT NOT NULL, 
	state TEXT NOT NULL, 
	data BLOB NOT NULL, 
	created DOUBLE NOT NULL, 
	updated DOUBLE NOT NULL, 
	PRIMARY KEY (uid)
);
CREATE TABLE scheduled_step (
	id INTEGER NOT NULL, 
	procedure_step_uid TEXT NOT NULL, 
	study_instance_uid TEXT NOT NULL, 
	step_id TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(procedure_step_uid) REFERENCES procedure_step (uid)
);
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
INSERT INTO "schema_version" VALUES(1);
CREATE TABLE series (
	id INTEGER NOT NULL, 
	parent_id INTEGER NOT NULL, 
	timezone TEXT DEFAULT '' NOT NULL, 
	modality TEXT DEFAULT '' NOT NULL, 
	series_number TEXT DEFAULT '' NOT NULL, 
	series_instance_uid TEXT DEFAULT '' NOT NULL, 
	series_date TEXT DEFAULT '' NOT NULL, 
	series_date_key TEXT DEFAULT '' NOT NULL, 
	series_time TEXT DEFAULT '' NOT NULL, 
	series_time_key TEXT DEFAULT '' NOT NULL, 
	manufacturer TEXT DEFAULT '' NOT NULL, 
	institution_name TEXT DEFAULT '' NOT NULL, 
	station_name TEXT DEFAULT '' NOT NULL, 
	series_description TEXT DEFAULT '' NOT NULL, 
	institutional_department_name TEXT DEFAULT '' NOT NULL, 
	performing_physician_name TEXT DEFAULT '' NOT NULL, 
	manufacturer_model_name TEXT DEFAULT '' NOT NULL, 
	body_part_examined TEXT DEFAULT '' NOT NULL, 
	protocol_name TEXT DEFAULT '' NOT NULL, 
	laterality TEXT DEFAULT '' NOT NULL, 
	performed_procedure_step_start_date TEXT DEFAULT '' NOT NULL, 
	performed_procedure_step_start_date_key TEXT DEFAULT '' NOT NULL, 
	performed_procedure_step_start_time TEXT DEFAULT '' NOT NULL, 
	performed_procedure_step_start_time_key TEXT DEFAULT '' NOT NULL, 
	request_attributes_sequence BLOB, 
	PRIMARY KEY (id), 
	FOREIGN KEY(parent_id) REFERENCES study (id)
);
INSERT INTO "series" VALUES(1,1,'','CT','','1.1.1','','','','','','','','','','','','','','','','','','',NULL);
INSERT INTO "series" VALUES(2,2,'','CT','','1.2.1','','','','','','','','','','','','','','','','','','',NULL);
INSERT INTO "series" VALUES(3,3,'','CT','','1.3.1','','','','','','','','','','','','','','','','','','',NULL);
INSERT INTO "series" VALUES(4,4,'','CT','','1.4.1','','','','','','','','','','','','','','','','','','',NULL);
INSERT INTO "series" VALUES(5,5,'','CT','','1.5.1','','','','','','','','','','','','','','','','','','',NULL);
INSERT INTO "series" VALUES(6,6,'','CT','','1.6.1','','','','','','','','','','','','','','','','','','',NULL);
INSERT INTO "series" VALUES(7,7,'','CT','','1.7.1','','','','','','','','','','','','','','','','','','',NULL);
INSERT INTO "series" VALUES(8,8,'','CT','','1.8.1','','','','','','','','','','','','','','','','','','',NULL);
CREATE TABLE study (
	id INTEGER NOT NULL, 
	parent_id INTEGER NOT NULL, 
	timezone TEXT DEFAULT '' NOT NULL, 
	study_date TEXT DEFAULT '' NOT NULL, 
	study_date_key TEXT DEFAULT '' NOT NULL, 
	study_time TEXT DEFAULT '' NOT NULL, 
	study_time_key TEXT DEFAULT '' NOT NULL, 
	accession_number TEXT DEFAULT '' NOT NULL, 
	study_id TEXT DEFAULT '' NOT NULL, 
	study_instance_uid TEXT DEFAULT '' NOT NULL, 
	anatomic_regions_in_study_code_sequence BLOB, 
	referring_physician_name TEXT DEFAULT '' NOT NULL, 
	referring_physician_name_alphabetic TEXT DEFAULT '' NOT NULL, 
	referring_physician_name_ideographic TEXT DEFAULT '' NOT NULL, 
	referring_physician_name_phonetic TEXT DEFAULT '' NOT NULL, 
	referring_physician_name_sound TEXT DEFAULT '' NOT NULL, 
	study_description TEXT DEFAULT '' NOT NULL, 
	procedure_code_sequence BLOB, 
	name_of_physicians_reading_study TEXT DEFAULT '' NOT NULL, 
	admitting_diagnoses_description TEXT DEFAULT '' NOT NULL, 
	referenced_study_sequence BLOB, 
	patient_age TEXT DEFAULT '' NOT NULL, 
	patient_size TEXT DEFAULT '' NOT NULL, 
	patient_size_key TEXT DEFAULT '' NOT NULL, 
	patient_weight TEXT DEFAULT '' NOT NULL, 
	patient_weight_key TEXT DEFAULT '' NOT NULL, 
	occupation TEXT DEFAULT '' NOT NULL, 
	additional_patient_history TEXT DEFAULT '' NOT NULL, 
	other_study_numbers TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(parent_id) REFERENCES patient (id)
);
INSERT INTO "study" VALUES(1,1,'','20240102','20240102','','','','','1.1',NULL,'','','','','','',NULL,'','',NULL,'','','','','','','','');
INSERT INTO "study" VALUES(2,1,'','20240102','20240102','','','','','1.2',NULL,'','','','','','',NULL,'','',NULL,'','','','','','','','');
INSERT INTO "study" VALUES(3,1,'','20240102','20240102','','','','','1.3',NULL,'','','','','','',NULL,'','',NULL,'','','','','','','','');
INSERT INTO "study" VALUES(4,1,'','20240102','20240102','','','','','1.4',NULL,'','','','','','',NULL,'','',NULL,'','','','','','','','');
INSERT INTO "study" VALUES(5,1,'','20240102','20240102','','','','','1.5',NULL,'','','','','','',NULL,'','',NULL,'','','','','','','','');
INSERT INTO "study" VALUES(6,2,'','20240102','20240102','','','','','1.6',NULL,'','','','','','',NULL,'','',NULL,'','','','','','','','');
INSERT INTO "study" VALUES(7,3,'','20240102','20240102','','','','','1.7',NULL,'','','','','','',NULL,'','',NULL,'','','','','','','','');
INSERT INTO "study" VALUES(8,3,'','20240102','20240102','','','','','1.8',NULL,'','','','','','',NULL,'','',NULL,'','','','','','','','');
CREATE TABLE task (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind TEXT NOT NULL, 
	destination TEXT NOT NULL, 
	chain TEXT DEFAULT '' NOT NULL, 
	payload JSON NOT NULL, 
	state TEXT NOT NULL, 
	attempt INTEGER DEFAULT '0' NOT NULL, 
	created DOUBLE NOT NULL, 
	not_before DOUBLE NOT NULL, 
	lease_until DOUBLE DEFAULT '0' NOT NULL, 
	owner TEXT DEFAULT '' NOT NULL, 
	last_error TEXT DEFAULT '' NOT NULL
);
CREATE TABLE worklist_item (
	id INTEGER NOT NULL, 
	study_instance_uid TEXT NOT NULL, 
	step_id TEXT NOT NULL, 
	data BLOB NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (study_instance_uid, step_id)
);
CREATE INDEX ix_patient_patient_birth_date_key ON patient (patient_birth_date_key);
CREATE INDEX ix_patient_patient_id ON patient (patient_id);
CREATE INDEX ix_patient_patient_name_alphabetic ON patient (patient_name_alphabetic);
CREATE INDEX ix_patient_patient_name_ideographic ON patient (patient_name_ideographic);
CREATE INDEX ix_patient_patient_name_phonetic ON patient (patient_name_phonetic);
CREATE INDEX ix_task_chain ON task (chain);
CREATE INDEX ix_task_state ON task (state, not_before);
CREATE INDEX ix_commitment_transaction_uid ON commitment (transaction_uid);
CREATE INDEX ix_study_study_id ON study (study_id);
CREATE INDEX ix_study_study_date_key ON study (study_date_key);
CREATE INDEX ix_study_accession_number ON study (accession_number);
CREATE INDEX ix_study_parent_id ON study (parent_id);
CREATE UNIQUE INDEX ux_study_uid ON study (study_instance_uid);
CREATE INDEX ix_scheduled_step_study_instance_uid ON scheduled_step (study_instance_uid);
CREATE UNIQUE INDEX ux_series_uid ON series (parent_id, series_instance_uid);
CREATE INDEX ix_series_series_instance_uid ON series (series_instance_uid);
CREATE UNIQUE INDEX ux_instance_uid ON instance (sop_instance_uid);
CREATE INDEX ix_instance_parent_id ON instance (parent_id);
DELETE FROM "sqlite_sequence";
COMMIT;
